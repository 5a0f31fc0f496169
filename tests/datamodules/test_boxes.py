from __future__ import annotations

from pathlib import Path

import pytest

from datamodules import DataError, ImageFolderDataModule, list_folder, pack_folder
from datamodules.boxes import Annotation, write_annotation
from tests.datamodules.test_finding import NAMES, listed, read
from tests.images import make_images


class TestBoxes:
    def annotate(self, path: Path, *names: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_annotation(path, Annotation(50, 40, names, ((1.0, 2.0, 9.0, 9.0),) * len(names)))

    def test_they_label_what_nothing_else_does(self, tmp_path: Path) -> None:
        make_images(tmp_path / "flat", *(f"{name}.png" for name in "abcde"))
        self.annotate(tmp_path / "boxes/a.xml", "owl")
        self.annotate(tmp_path / "boxes/b.xml", "dog", "dog", "lamp")
        self.annotate(tmp_path / "boxes/c.xml", "dog", "cat")
        (tmp_path / "boxes/d.xml").write_text("no xml")
        boxes = tmp_path / "boxes"
        expected = {"a.png": 2, "b.png": 1, "c.png": -1, "d.png": -1, "e.png": -1}
        assert listed(tmp_path / "flat", NAMES, boxes=boxes) == expected
        assert list_folder(tmp_path / "flat", NAMES, boxes=boxes).notes == (
            "2 images are labelled by the class that their boxes name",
            "1 images have boxes of several classes, so no label: c.png",
        )
        pack_folder(tmp_path / "flat", tmp_path / "shards", boxes=tmp_path / "boxes")
        assert read(tmp_path / "shards") == expected

    def test_of_an_image_that_lies_deeper(self, tmp_path: Path) -> None:
        """In as deep a folder, in the one of its class, or in none."""
        make_images(tmp_path / "images", "cat/images/a.png", "cat/images/b.png", "cat/images/c.png")
        for name in ("cat/images/a", "cat/b", "c"):
            self.annotate(tmp_path / f"boxes/{name}.xml", "cat")
        data = ImageFolderDataModule(
            str(tmp_path / "images"), str(tmp_path / "boxes"), class_names=NAMES, num_workers=0, input_size=8
        )
        data.setup("test")
        (batch,) = data.test_dataloader()
        assert batch["n_boxes"].tolist() == [1, 1, 1]
        assert data.notes == ()

    def test_of_other_images_or_another_network(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png", "dog/a.png")
        boxes = tmp_path / "boxes"
        self.annotate(tmp_path / "boxes/val/cat/a.xml", "cat")
        (note,) = list_folder(tmp_path / "images", NAMES, boxes=boxes).notes
        assert f"none of 2 images has boxes in {tmp_path}/boxes, where cat/a.png would have cat/a.xml or a.xml" in note
        self.annotate(tmp_path / "boxes/a.xml", "lamp", "Cat")
        assert list_folder(tmp_path / "images", NAMES, boxes=boxes).notes == (
            f"cat/a.png and dog/a.png, at least, have the same boxes: {tmp_path}/boxes/a.xml",
            f"the boxes in {tmp_path}/boxes are of no class of the network: Cat, lamp",
        )
        with pytest.raises(DataError, match=r"a\.xml \(data\.boxes\) is not a folder"):
            ImageFolderDataModule(str(tmp_path / "images"), str(tmp_path / "boxes/a.xml"))

    def test_not_what_a_folder_says(self, tmp_path: Path) -> None:
        make_images(tmp_path / "images", "cat/a.png")
        self.annotate(tmp_path / "boxes/cat/a.xml", "owl")
        assert listed(tmp_path / "images", NAMES, boxes=tmp_path / "boxes") == {"cat/a.png": 0}
