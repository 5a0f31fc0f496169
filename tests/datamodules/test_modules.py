from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from datamodules import DataError, ImageFolderDataModule, modules
from datamodules.boxes import Annotation, write_annotation
from datamodules.loader import Marks
from tests.datamodules.trainers import fake_trainer
from tests.images import make_images


def batches(root: Path, **options: object) -> list[dict]:
    data = ImageFolderDataModule(str(root), **{"num_workers": 0, **options})
    data.setup("test")
    return list(data.test_dataloader())


class TestBatches:
    def test_contents(self, tmp_path: Path) -> None:
        make_images(tmp_path, "cat/a b'c.png", "dog/ü.png")
        (batch,) = batches(tmp_path, class_names=["cat", "dog"], n_originals=1)
        assert batch["image"].shape == (2, 3, 224, 224)
        assert batch["image"].dtype == torch.uint8
        assert batch["label"].tolist() == [0, 1]
        assert batch["index"].tolist() == [0, 1]
        assert batch["path"] == ["cat/a b'c.png", "dog/ü.png"]
        assert batch["boxes"].shape == (0, 4)
        assert batch["n_boxes"].tolist() == [0, 0]
        assert batch["failed"] == []
        assert batch["file_columns"] == [{"exif_orientation": 1, "note": None}] * 2
        assert batch["original"][0].pixels.shape == (40, 50, 3)
        assert batch["original"][0].view == pytest.approx((7.5, 2.5, 42.5, 37.5))
        assert batch["original"][1] is None

    def test_only_bad_files(self, tmp_path: Path) -> None:
        make_images(tmp_path, "cat/a.png")
        (tmp_path / "cat/a.png").write_bytes(b"x")
        (batch,) = batches(tmp_path)
        assert (len(batch["image"]), batch["image"].dtype) == (0, torch.uint8)
        assert len(batch["failed"]) == 1

    @pytest.mark.parametrize("world", [1, 2, 3, 9])
    def test_devices_share_the_images_exactly(self, tmp_path: Path, world: int) -> None:
        make_images(tmp_path, *(f"cat/{k}.png" for k in range(7)))
        paths = []
        for rank in range(world):
            data = ImageFolderDataModule(str(tmp_path), num_workers=0)
            data.trainer = fake_trainer(rank, world)
            data.begin_run(tmp_path / "run", lambda: {"cat/3.png"}, 1.0)
            if rank == 0:
                data.prepare_data()
            data.setup("test")
            paths += [path for batch in data.test_dataloader() for path in batch["path"]]
        assert sorted(paths) == [f"cat/{k}.png" for k in (0, 1, 2, 4, 5, 6)]

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"batch_size": 0}, "data.batch_size must be at least 1"), ({"boxes": "nowhere"}, r"nowhere \(data.boxes\)")],
    )
    def test_bad_options(self, tmp_path: Path, options: dict, message: str) -> None:
        with pytest.raises(DataError, match=message):
            ImageFolderDataModule(str(tmp_path), **options)


class TestBoxes:
    annotation = Annotation(50, 40, ("cat", "unknown"), ((10.0, 10.0, 20.0, 30.0), (0.0, 0.0, 50.0, 40.0)))

    @pytest.mark.parametrize("place", ["cat/a.xml", "a.xml"])
    def test_layouts_of_ilsvrc(self, tmp_path: Path, place: str) -> None:
        make_images(tmp_path / "images", "cat/a.png", "cat/b.png")
        (tmp_path / "boxes" / place).parent.mkdir(parents=True)
        write_annotation(tmp_path / "boxes" / place, self.annotation)
        (batch,) = batches(tmp_path / "images", boxes=str(tmp_path / "boxes"), class_names=["dog", "cat"])
        # The view is (7.5, 2.5) to (42.5, 37.5), 35 pixels that become 224.
        expected = [[16.0, 48.0, 80.0, 176.0], [0.0, 0.0, 224.0, 224.0]]
        torch.testing.assert_close(batch["boxes"], torch.tensor(expected))
        assert batch["box_labels"].tolist() == [1, -1]
        assert batch["n_boxes"].tolist() == [2, 0]

    def test_annotation_of_another_image(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png")
        (tmp_path / "boxes").mkdir()
        write_annotation(tmp_path / "boxes/a.xml", Annotation(100, 40, (), ()))
        (batch,) = batches(tmp_path / "images", boxes=str(tmp_path / "boxes"))
        assert batch["failed"] == []
        assert "a.xml is of an image of 100 × 40 pixels, not 50 × 40" in batch["box_error"][0]
        assert batch["n_boxes"].tolist() == [0]

    def test_malformed_annotation_is_told_and_not_fatal(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png", "cat/b.png")
        (tmp_path / "boxes").mkdir()
        (tmp_path / "boxes/a.xml").write_text("<annotation>")
        write_annotation(tmp_path / "boxes/b.xml", self.annotation)
        (batch,) = batches(tmp_path / "images", boxes=str(tmp_path / "boxes"))
        assert "a.xml: no element found" in batch["box_error"][0]
        assert batch["box_error"][1] is None
        assert batch["n_boxes"].tolist() == [0, 2]


class TestOrientation:
    """A file of 50 × 40 pixels that asks to be turned."""

    box = 10.0, 4.0, 30.0, 12.0
    in_the_file = 50, 40

    def folder(self, tmp_path: Path, orientation: int, size: tuple[int, int] = in_the_file) -> Path:
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        left, top, right, bottom = (int(v) for v in self.box)
        pixels[top:bottom, left:right] = 255
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        (tmp_path / "images/cat").mkdir(parents=True)
        (tmp_path / "boxes").mkdir()
        Image.fromarray(pixels).save(tmp_path / "images/cat/a.png", exif=exif)
        return tmp_path / "images"

    def batch(self, root: Path, annotation: Annotation, is_on: bool) -> dict:
        write_annotation(root.parent / "boxes/a.xml", annotation)
        options = {"boxes": str(root.parent / "boxes"), "class_names": ["cat"], "resize_size": None, "input_size": 40}
        (batch,) = batches(root, exif_orientation=is_on, n_originals=1, **options)
        assert batch["failed"] == []
        return batch

    @pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
    @pytest.mark.parametrize("of_the_file", [False, True], ids=["seen", "as in the file"])
    @pytest.mark.parametrize("orientation", [5, 6, 7, 8])
    def test_boxes_follow_by_the_size_of_their_annotation(
        self, tmp_path: Path, orientation: int, of_the_file: bool, is_on: bool
    ) -> None:
        """The bright rectangle is found where its box was moved to, whichever of the two was annotated."""
        root, (width, height) = self.folder(tmp_path, orientation), self.in_the_file
        left, top, right, bottom = self.box
        turned_box = {
            5: (top, left, bottom, right),
            6: (height - bottom, left, height - top, right),
            7: (height - bottom, width - right, height - top, width - left),
            8: (top, width - right, bottom, width - left),
        }[orientation]
        annotation = (
            Annotation(width, height, ("cat",), (self.box,))
            if of_the_file
            else Annotation(height, width, ("cat",), (turned_box,))
        )
        batch = self.batch(root, annotation, is_on)
        assert batch["box_error"] == [None]
        assert [of["exif_orientation"] for of in batch["file_columns"]] == [1 if is_on else orientation]
        assert batch["original"][0].pixels.shape[:2] == ((width, height) if is_on else (height, width))
        x, y = (batch["image"][0, 0] > 0.5 * batch["image"].max()).nonzero().flip(1).aminmax(dim=0)
        found = torch.cat([x, y + 1]).float()
        torch.testing.assert_close(batch["boxes"][0], found)

    @pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
    @pytest.mark.parametrize(
        ("orientation", "size"), [(2, (50, 40)), (3, (50, 40)), (4, (50, 40)), (6, (40, 40)), (5, (40, 40))]
    )
    def test_boxes_are_not_guessed(self, tmp_path: Path, orientation: int, size: tuple[int, int], is_on: bool) -> None:
        root = self.folder(tmp_path, orientation, size)
        batch = self.batch(root, Annotation(*size, ("cat",), (self.box,)), is_on)
        assert len(batch["boxes"]) == len(batch["box_labels"]) == 0
        assert f"a.xml is of an image with the EXIF orientation {orientation}" in batch["box_error"][0]
        assert "before or after it is turned cannot be told" in batch["box_error"][0]

    def test_an_annotation_without_boxes_tells_nothing_wrong(self, tmp_path: Path) -> None:
        batch = self.batch(self.folder(tmp_path, 3), Annotation(50, 40, (), ()), True)
        assert batch["box_error"] == [None]

    def test_an_annotation_of_another_image(self, tmp_path: Path) -> None:
        batch = self.batch(self.folder(tmp_path, 6), Annotation(50, 41, ("cat",), (self.box,)), True)
        assert "a.xml is of an image of 50 × 41 pixels, not 40 × 50" in batch["box_error"][0]

    @pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
    def test_training_has_it_too(self, tmp_path: Path, is_on: bool) -> None:
        root = self.folder(tmp_path, 6)
        for part in ("train", "val"):
            (tmp_path / part / "cat").mkdir(parents=True)
            (tmp_path / part / "cat/a.png").write_bytes((root / "cat/a.png").read_bytes())
        data = ImageFolderDataModule(str(tmp_path), num_workers=0, exif_orientation=is_on)
        data.setup("fit")
        for loader in (data.train_dataloader(), data.val_dataloader()):
            assert [batch["file_columns"][0]["exif_orientation"] for batch in loader] == [1 if is_on else 6]


class TestTraining:
    def test_train_and_val_folders(self, tmp_path: Path) -> None:
        make_images(tmp_path, "train/cat/a.png", "train/dog/b.png", "val/dog/c.png")
        data = ImageFolderDataModule(str(tmp_path), num_workers=0, batch_size=1)
        data.setup("fit")
        assert data.train_class_names() == ["cat", "dog"]
        assert sorted(batch["path"][0] for batch in data.train_dataloader()) == ["cat/a.png", "dog/b.png"]
        assert [batch["label"].tolist() for batch in data.val_dataloader()] == [[1]]

    def test_images_are_held_out_by_their_paths(self, tmp_path: Path) -> None:
        make_images(tmp_path, *(f"{c}/{k}.png" for c in ("cat", "dog") for k in range(40)))
        data = ImageFolderDataModule(str(tmp_path), num_workers=0)
        data.setup("fit")
        parts = [set(source.names()) for source in (data.train_source, data.val_source)]
        assert not parts[0] & parts[1]
        assert len(parts[0]) + len(parts[1]) == 80
        assert 5 < len(parts[1]) < 30
        before = parts[1]
        make_images(tmp_path, "cat/new.png")
        data.setup("fit")
        assert before <= set(data.val_source.names())

    def test_no_classes(self, tmp_path: Path) -> None:
        make_images(tmp_path, "a.png")
        with pytest.raises(DataError, match="no class folders to train on"):
            ImageFolderDataModule(str(tmp_path)).train_class_names()


class TestListingOnce:
    def module(self, tmp_path: Path, rank: int, world: int = 2, limit: float = 1.0) -> ImageFolderDataModule:
        data = ImageFolderDataModule(str(tmp_path / "images"), num_workers=0, batch_size=2)
        assert data.begin_run(tmp_path / "run", lambda: {"cat/3.png"}, limit)
        data.trainer = fake_trainer(rank, world)
        return data

    def test_the_first_process_lists_for_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_images(tmp_path / "images", *(f"cat/{k}.png" for k in range(7)))
        first = self.module(tmp_path, rank=0)
        assert not first.prepare_data_per_node
        before = first.fingerprint()
        first.prepare_data()
        make_images(tmp_path / "images", "cat/later.png")
        second = self.module(tmp_path, rank=1)
        monkeypatch.setattr(modules, "kind_at", None)
        paths = []
        for data in (first, second):
            data.setup("test")
            assert data.source.file == tmp_path / "run/listing.arrow"
            paths += [path for batch in data.test_dataloader() for path in batch["path"]]
        assert sorted(paths) == [f"cat/{k}.png" for k in (0, 1, 2, 4, 5, 6)]
        assert first.fingerprint() == before

    def test_a_listing_of_before_is_not_taken_for_the_folder(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/1.png")
        before = self.module(tmp_path, rank=0)
        before.prepare_data()
        make_images(tmp_path / "images", "cat/2.png")
        now = self.module(tmp_path, rank=0)
        assert now.fingerprint() != before.fingerprint()
        now.prepare_data()
        now.setup("test")
        assert len(now.source) == now.n_listed == 2

    @pytest.mark.parametrize("is_in_order", [False, True])
    def test_only_what_was_read_when_a_process_died_is_tried(
        self, tmp_path: Path, is_in_order: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_images(tmp_path / "images", *(f"cat/{k}.png" for k in range(7)))
        tried: list[int] = []
        monkeypatch.setattr(modules, "lethal", lambda read, numbers: tried.extend(numbers) or {5: "deadly"})
        Marks(tmp_path / "run/reading/1", 2, int).numbers[:] = 5, 3  # of which 3 has its rows
        if is_in_order:  # a signal ended the run
            self.module(tmp_path, rank=1).end_early()
        data = self.module(tmp_path, rank=0, world=1)
        data.prepare_data()
        data.setup("test")
        failures = [failure for batch in data.test_dataloader() for failure in batch["failed"]]
        assert (tried, failures) == (([], []) if is_in_order else ([5], [("cat/5.png", "deadly")]))
        assert not (tmp_path / "run/reading").exists()

    @pytest.mark.parametrize(("limit", "n_left"), [(1, [2, 1]), (2, [4, 2]), (0.5, [2, 1]), (1.0, [4, 2])])
    def test_a_limit_counts_what_is_done(self, tmp_path: Path, limit: float, n_left: list[int]) -> None:
        make_images(tmp_path / "images", *(f"cat/{k}.png" for k in range(7)))
        for rank in range(2):
            data = self.module(tmp_path, rank, limit=limit)
            if rank == 0:
                data.prepare_data()
            data.setup("test")
            n = sum(len(batch["path"]) for batch in data.test_dataloader())
            assert n == data.n_left(rank, 2) == n_left[rank]
        assert data.n_listed == 7

    def test_fingerprint_covers_the_boxes(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png")
        (tmp_path / "boxes/cat").mkdir(parents=True)
        data = ImageFolderDataModule(str(tmp_path / "images"), boxes=str(tmp_path / "boxes"))
        found = [data.fingerprint()]
        for name in ("a.xml", "cat/a.xml"):
            (tmp_path / "boxes" / name).touch()
            found.append(data.fingerprint())
        assert [f["n_boxes"] for f in found] == [0, 1, 2]
        assert len({f["boxes_sha256"] for f in found}) == 3
        assert len({f["sha256"] for f in found}) == 1
