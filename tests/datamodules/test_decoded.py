from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

from datamodules import DataError, ImageFolderDataModule, Preprocess, label_file, pack_decoded, packing
from datamodules.boxes import Annotation, write_annotation
from datamodules.decoded import DecodedSource
from datamodules.reader import SampleReader
from datamodules.source import ListingOptions, Source
from datamodules.subset import Subset
from tests.datamodules.test_tar import NAMES, same, samples
from tests.images import make_images

SMALL = Preprocess(32, 24)
SIZES = {"resize_size": 32, "input_size": 24}


def make_folder(root: Path) -> Path:
    """Images of every kind that there is: turned, dark, damaged, oddly named, with boxes that are right and wrong."""
    make_images(root / "images", *(f"cat/{k}.png" for k in range(5)), *(f"dog/{k}.png" for k in range(4)))
    generator = np.random.default_rng(0)
    for k, size in enumerate([(60, 40), (40, 60), (31, 33), (2000, 7)]):
        pixels = generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = (1, 6, 3, 8)[k]
        Image.fromarray(pixels).save(root / f"images/dog/noise {k}.jpg", exif=exif)
    Image.fromarray(generator.integers(0, 256, (40, 50, 2), dtype=np.uint8)).save(root / "images/cat/alpha.png")
    (root / "images/dog/empty.jpg").touch()
    os.rename(root / "images/cat/4.png", os.fsencode(root / "images/cat") + b"/\xff\n.png")
    (root / "images/cat/deeper").mkdir()
    shutil.copy(root / "images/dog/0.png", root / "images/cat/deeper/x.png")
    for name, annotation in {
        "cat/0": Annotation(50, 40, ("cat", "bird", "dog"), ((10, 10, 20.5, 30), (0, 0, 9, 9), (1, 2, 3, 4))),
        "cat/1": Annotation(10, 40, ("cat",), ((1, 1, 2, 3),)),  # of another size
        "cat/2": Annotation(50, 40, (), ()),
        "dog/noise 1": Annotation(60, 40, ("dog",), ((1, 1, 20, 30),)),
        "dog/noise 2": Annotation(31, 33, ("dog",), ((1, 1, 20, 30),)),  # turned or not: nobody knows
    }.items():
        (root / "boxes" / name).parent.mkdir(parents=True, exist_ok=True)
        write_annotation(root / f"boxes/{name}.xml", annotation)
    (root / "boxes/dog/3.xml").write_text("<annotation>")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_folder(tmp_path_factory.mktemp("folder"))
    pack_decoded(root / "images", root / "decoded", SMALL, root / "boxes", num_workers=0)
    return root


def test_the_folder_is_of_all_kinds(folder: Path) -> None:
    found = samples(folder / "images", boxes=str(folder / "boxes"), **SIZES)
    assert len(found) == 16
    assert found["dog/empty.jpg"] == "the file is empty"
    whole: Any = {path: sample for path, sample in found.items() if isinstance(sample, tuple)}
    assert sum(sample[2] is not None for sample in whole.values()) == 3
    assert sum(sample[4]["exif_orientation"] > 1 for sample in whole.values()) == 3
    assert sum(sample[4]["note"] is not None for sample in whole.values()) == 1
    assert {len(sample[5][0]) for sample in whole.values()} == {0, 1, 3}


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (3, 0)])
def test_same_samples_as_from_the_folder(folder: Path, world: int, workers: int) -> None:
    """To the bit, failures and the messages of boxes among them."""
    expected = samples(folder / "images", boxes=str(folder / "boxes"), **SIZES)
    assert same(samples(folder / "decoded", world, workers, **SIZES), expected)


def test_labels_of_boxes_are_those_of_the_network_that_reads(folder: Path) -> None:
    for names in (["dog", "bird", "cat"], ["cat", "dog", "b_ird", "bird", "bi rd"], ["cat", "dog", "bird", "bird"]):
        found = samples(folder / "decoded", class_names=names, **SIZES)
        assert same(found, samples(folder / "images", class_names=names, boxes=str(folder / "boxes"), **SIZES))


def test_originals_are_those_of_the_files(folder: Path) -> None:
    batches = []
    for root in (folder / "images", folder / "decoded"):
        data = ImageFolderDataModule(str(root), class_names=NAMES, num_workers=0, n_originals=20, **SIZES)
        data.setup("test")
        (batch,) = data.test_dataloader()
        batches.append(dict(zip(batch["path"], batch["original"], strict=True)))
    for path, original in batches[0].items():
        np.testing.assert_array_equal(batches[1][path].pixels, original.pixels)
        assert batches[1][path].view == original.view
    assert len(batches[0]) == 15


def test_beyond_the_first_images_the_packed_pixels_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path / "images", "cat/a.png", "cat/b.png")
    monkeypatch.setattr(packing, "ORIGINALS", 1)
    pack_decoded(tmp_path / "images", tmp_path / "decoded", SMALL, num_workers=0)
    data = ImageFolderDataModule(str(tmp_path / "decoded"), class_names=NAMES, num_workers=0, n_originals=2, **SIZES)
    data.setup("test")
    (batch,) = data.test_dataloader()
    kept, packed = batch["original"]
    assert kept.pixels.shape == (40, 50, 3)
    np.testing.assert_array_equal(packed.pixels, batch["image"][1].permute(1, 2, 0))
    assert packed.view == (0, 0, 24, 24)


def test_turned_images(folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"exif_orientation": True, **SIZES}
    pack_decoded(
        folder / "images", tmp_path / "turned", SMALL, boxes=folder / "boxes", exif_orientation=True, num_workers=0
    )
    expected = samples(folder / "images", boxes=str(folder / "boxes"), **options)
    assert same(samples(tmp_path / "turned", **options), expected)


def test_boxes_that_are_given_later(folder: Path, tmp_path: Path) -> None:
    """As with tar shards, they count where none were packed."""
    pack_decoded(folder / "images", tmp_path / "bare", SMALL, num_workers=0)
    boxes = str(folder / "boxes")
    assert same(samples(tmp_path / "bare", boxes=boxes, **SIZES), samples(folder / "images", boxes=boxes, **SIZES))
    assert same(samples(tmp_path / "bare", **SIZES), samples(folder / "images", **SIZES))


def test_a_flat_folder_is_labelled_by_a_table_or_by_boxes(tmp_path: Path) -> None:
    make_images(tmp_path / "flat", "a.png", "b.png", "c.png", "d.png")
    (tmp_path / "flat/d.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("a.png,dog\nb.png,1\n")
    (tmp_path / "boxes").mkdir()
    for name, of in {"a": ("cat", "cat"), "b": ("cat", "dog"), "c": ("bird",), "d": ("dog",)}.items():
        boxes = tuple((1.0, 1.0, 5.0, 5.0 + k) for k in range(len(of)))
        write_annotation(tmp_path / f"boxes/{name}.xml", Annotation(50, 40, of, boxes))
    labels = label_file(str(tmp_path / "labels.csv"), None)
    pack_decoded(tmp_path / "flat", tmp_path / "table", SMALL, labels=labels, num_workers=0)
    pack_decoded(tmp_path / "flat", tmp_path / "boxed", SMALL, boxes=tmp_path / "boxes", num_workers=0)
    pack_decoded(tmp_path / "flat", tmp_path / "bare", SMALL, num_workers=0)
    for name, expected in {"table": [1, 1, -1, -1], "boxed": [0, -1, -1, 1], "bare": [-1] * 4}.items():
        source = listed(tmp_path / name)
        found = {source.path(k): label for k, label in enumerate(source.labels.tolist())}
        assert [found[f"{letter}.png"] for letter in "abcd"] == expected, name


def test_what_is_done_is_left_out_and_parts_are_those_of_the_folder(folder: Path) -> None:
    done = {"cat/\\xff\n.png", "dog/noise 1.jpg", "dog/empty.jpg"}
    found = samples(folder / "decoded", world=2, done=done, **SIZES)
    assert found.keys() == samples(folder / "images", **SIZES).keys() - done
    for part in ({"include": ["dog/noise*", "cat/0.png"]}, {"limit_per_class": 2}, {"sample": 5, "seed": 3}):
        options: dict[str, Any] = {**part, **SIZES, "boxes": str(folder / "boxes")}
        expected = samples(folder / "images", **options)
        assert 2 < len(expected) < 16
        assert same(samples(folder / "decoded", **options), expected)


def listed(root: Path) -> DecodedSource:
    return DecodedSource.open(root, ListingOptions(NAMES))


def test_a_listing_is_sent_as_a_name_and_knows_its_content(folder: Path, tmp_path: Path) -> None:
    source = listed(folder / "decoded").chosen(Subset(sample=7))
    source.save(tmp_path / "listing.arrow")
    loaded = Source.load(tmp_path / "listing.arrow")
    sent = pickle.dumps(loaded)
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again.fingerprint() == source.fingerprint()
    reader = SampleReader(SMALL)
    assert all(same(again.read(k, reader), source.read(k, reader)) for k in range(7))
    Image.new("RGB", (50, 40), "red").save(folder / "images/cat/3.png")
    pack_decoded(folder / "images", tmp_path / "other", SMALL, folder / "boxes", num_workers=0)
    one, two = (listed(root).fingerprint() for root in (folder / "decoded", tmp_path / "other"))
    assert one.pop("content_sha256") != two.pop("content_sha256")
    assert one == two
    make_images(folder / "images/cat", "0.png", "1.png", "2.png", "3.png")


def test_the_same_folder_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    pack_decoded(folder / "images", tmp_path / "again", SMALL, folder / "boxes", num_workers=2)
    files = sorted((folder / "decoded").iterdir())
    assert [file.name for file in files] == ["images.npy", "images.parquet"]
    assert [file.read_bytes() for file in files] == [(tmp_path / "again" / f.name).read_bytes() for f in files]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"resize_size": 33}, "bilinear to a shorter side of 33, cropped to 24 × 24"),
        ({"input_size": 20}, "shorter side of 32, cropped to 20 × 20"),
        ({"interpolation": "bicubic"}, "as they lie, bicubic to"),
        ({"exif_orientation": True}, "turned as EXIF asks, bilinear to"),
    ],
    ids=str,
)
def test_other_pixels_than_the_network_wants_are_refused(folder: Path, options: dict, wanted: str) -> None:
    data = ImageFolderDataModule(str(folder / "decoded"), class_names=NAMES, **{**SIZES, **options})
    packed = "holds images as they lie, bilinear to a shorter side of 32, cropped to 24 × 24, and the network is to"
    for refused in (data.fingerprint, lambda: data.setup("test")):
        with pytest.raises(DataError, match=f"{packed} see them .*{wanted}.*: pack them for it"):
            refused()


def test_the_same_pixels_said_otherwise_are_not_refused(folder: Path, tmp_path: Path) -> None:
    pack_decoded(folder / "images", tmp_path / "uncropped", Preprocess(None, 24), num_workers=0)
    assert len(samples(tmp_path / "uncropped", resize_size=24, input_size=24)) == 16


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "images.parquet").unlink(),
        lambda root: os.truncate(root / "images.npy", 1000),
        lambda root: np.save(root / "images.npy", np.zeros((15, 3, 24, 24), np.uint8)),
        lambda root: pq.write_table(pa.table({"path": ["a"] * 16}), root / "images.parquet"),
    ],
    ids=["no table", "cut", "another array", "another table"],
)
def test_what_is_not_whole(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    shutil.copytree(folder / "decoded", tmp_path / "decoded")
    change(tmp_path / "decoded")
    with pytest.raises(DataError, match="decoded holds no decoded images, or not all of them: pack them again"):
        listed(tmp_path / "decoded")


def test_what_an_earlier_version_packed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "00000.decoded.arrow").touch()
    for root in (tmp_path, tmp_path / "00000.decoded.arrow"):
        data = ImageFolderDataModule(str(root), class_names=NAMES, **SIZES)
        with pytest.raises(DataError, match=r"earlier version decoded\. Pack them anew .*pack_shards\.py"):
            data.fingerprint()


def test_labels_of_a_table_go_before_those_that_were_packed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("cat/0.png,dog\n1.png,cat\ndog/0.png,dog\n")
    with pytest.raises(DataError, match="may be meant for several images"):
        samples(folder / "decoded", labels=str(tmp_path / "labels.csv"), **SIZES)
    (tmp_path / "labels.csv").write_text("cat/0.png,dog\ndog/1.png,cat\ndog/0.png,dog\n")
    options: dict[str, Any] = {**SIZES, "labels": str(tmp_path / "labels.csv"), "boxes": str(folder / "boxes")}
    assert same(samples(folder / "decoded", **options), samples(folder / "images", **options))


@pytest.mark.parametrize(
    ("class_names", "options", "message"),
    [
        (None, {}, "class_names have to be known"),
        (["cat", "horse"], {}, "1 of 2 class folders match no class of the network"),
        (["cat", "cat", "dog"], {}, "fits several classes"),
        (NAMES, {"include": "horse*"}, "data.include horse.* matches none of 16 images"),
    ],
    ids=["unknown", "others", "two of a name", "include"],
)
def test_bad_wishes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, class_names: Any, options: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    data = ImageFolderDataModule(str(folder / "decoded"), class_names=class_names, **SIZES, **options)
    with pytest.raises(DataError, match=message):
        data.fingerprint()


def test_a_class_that_was_packed_and_the_network_lacks(tmp_path: Path) -> None:
    make_images(tmp_path / "flat", "a.png")
    (tmp_path / "labels.csv").write_text("a.png,horse\n")
    labels = label_file(str(tmp_path / "labels.csv"), None)
    pack_decoded(tmp_path / "flat", tmp_path / "decoded", SMALL, labels=labels, num_workers=0)
    with pytest.raises(
        DataError, match=r"decoded cannot be labelled: .* is 'horse', which is no class of the network\."
    ):
        listed(tmp_path / "decoded")


@pytest.mark.parametrize("place", ["", "train", "val"])
def test_training_needs_the_files(folder: Path, tmp_path: Path, place: str) -> None:
    make_images(tmp_path / "root", "train/cat/a.png", "val/cat/a.png")
    if place:
        shutil.rmtree(tmp_path / "root" / place)
    shutil.copytree(folder / "decoded", tmp_path / "root" / place if place else tmp_path / "alone")
    data = ImageFolderDataModule(str(tmp_path / ("root" if place else "alone")))
    for refused in (lambda: data.setup("fit"), data.train_class_names):
        with pytest.raises(
            DataError, match=r"holds shards or decoded images, which are for evaluation; training crops each image anew"
        ):
            refused()


class TestPacking:
    def test_a_full_disk_is_told_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_images(tmp_path / "images", "cat/a.png", "cat/b.png")
        usage = shutil.disk_usage(tmp_path)._replace(free=2 * 3 * 24 * 24 - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
        with pytest.raises(DataError, match=r"2 images of 1,728 bytes take 0\.0 GB, and .* has 0\.0 GB left"):
            pack_decoded(tmp_path / "images", tmp_path / "new/decoded", SMALL, num_workers=0)
        assert not (tmp_path / "new").exists()

    def test_all_or_nothing(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png", "cat/b.png")

        def stopped(numbers: range) -> Any:
            yield 0
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pack_decoded(tmp_path / "images", tmp_path / "out", SMALL, track=stopped, num_workers=0)
        assert [path.name for path in tmp_path.iterdir()] == ["images"]
        pack_decoded(tmp_path / "images", tmp_path / "out", SMALL, num_workers=0)
        with pytest.raises(DataError, match="exists and is not an empty folder"):
            pack_decoded(tmp_path / "images", tmp_path / "out", SMALL, num_workers=0)

    def test_what_a_killed_one_left_is_told(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        make_images(tmp_path / "images", "cat/a.png")
        for name in (".out.999999999.tmp", ".outer.3.tmp", ".out.listing.tmp"):
            (tmp_path / name).mkdir()
        pack_decoded(tmp_path / "images", tmp_path / "out", SMALL, num_workers=0)
        (said,) = caplog.messages
        assert said.startswith(f"{tmp_path}/.out.999999999.tmp is being written, or was left behind by a process")

    def test_pixels_are_read_where_they_lie(self, folder: Path) -> None:
        """Not a byte is copied before an image is asked for, and they take few open files, however many there are."""
        source, n_open = listed(folder / "decoded"), len(os.listdir("/proc/self/fd"))
        images = [source.prepared(k, with_original=False) for k in range(2)]
        assert len(os.listdir("/proc/self/fd")) <= n_open + 2
        places = [image["image"].data_ptr() for image in images if "failed" not in image]
        assert places[1] - places[0] == 3 * 24 * 24
        assert f"{folder}/decoded/images.npy" in Path("/proc/self/maps").read_text()
