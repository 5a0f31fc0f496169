"""Folders as people have them: of every file below the root, what it is, which class it has, why it was left out."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from datamodules import (
    DataError,
    ImageFolderDataModule,
    ImageSourcesDataModule,
    LabelFile,
    list_folder,
    pack_folder,
)
from datamodules.imagenet import imagenet_class_names
from datamodules.images.formats import openable
from datamodules.subset import Subset
from tests.images import make_images

NAMES = ["cat", "dog", "owl"]


def save(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), "teal").save(path, kind)


def listed(root: Path, names: list[str] | None = None, **options: Any) -> dict[str, int]:
    source = list_folder(root, names, **options)
    return {source.path(k): int(source.labels[k]) for k in range(len(source))}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of class folders with whatever else lies in such."""
    root = tmp_path / "tree"
    save(root / "cat/a.jpg", "JPEG")
    save(root / "cat/UPPER.JPEG", "JPEG")
    save(root / "cat/images/deep/b.png")
    save(root / "cat/modern.jp2", "JPEG2000")
    save(root / "cat/no_extension")
    save(root / "cat/photo.jpg_large", "JPEG")
    save(root / "dog/session1/y.jpg", "JPEG")
    save(root / "owl/only.avif", "AVIF" if features.check("avif") else "PNG")
    (root / "cat/phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    (root / "cat/heic_without_a_name").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    (root / "cat/raw.NEF").write_bytes(b"II*\0")
    (root / "cat/empty.jpg").touch()
    (root / "cat/dangling.png").symlink_to("nowhere")
    save(tmp_path / "elsewhere/z.png")
    (root / "dog/linked").symlink_to(tmp_path / "elsewhere")
    (root / "dog/up").symlink_to(root)
    (root / "dog/session1/round").symlink_to(root / "dog")
    for name in ("readme.txt", "cat/labels.csv", "cat/notes.txt", "cat/data.npy", "cat/nothing"):
        (root / name).write_bytes(b"text")
    for name in ("__MACOSX/cat/._a.jpg", "@eaDir/x.jpg", ".ipynb_checkpoints/a-checkpoint.png", "cat/._a.jpg"):
        save(root / name)
    save(root / "cat/.ipynb_checkpoints/a.png")
    (root / "cat/Thumbs.db").write_bytes(b"x")
    (root / "docs").mkdir()
    (root / "docs/manual.pdf").write_bytes(b"%PDF")
    os.mkfifo(root / "cat/pipe")
    return root


IMAGES = {
    **dict.fromkeys(
        ("a.jpg", "UPPER.JPEG", "images/deep/b.png", "modern.jp2", "no_extension", "photo.jpg_large"), "ok"
    ),
    **dict.fromkeys(("phone.heic", "heic_without_a_name"), "pillow-heif"),
    "raw.NEF": "raw file",
    "empty.jpg": "the file is empty",
    "dangling.png": "No such file",
}
"""Of the cats, and what becomes of them."""


def test_every_file_is_accounted_for(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = {f"cat/{name}": 0 for name in IMAGES}
    expected |= {"dog/session1/y.jpg": 1, "dog/linked/z.png": 1, "owl/only.avif": 2}
    assert listed(tree, NAMES) == expected
    assert set(list_folder(tree, NAMES).notes) == {
        "7 files are no images: without an extension 2, .txt 2, .csv, .npy, .pdf",
        "6 hidden or of the system, not looked into: .ipynb_checkpoints 2, ._a.jpg, @eaDir, Thumbs.db, __MACOSX",
        "2 links to a folder above, not followed: dog/session1/round, dog/up",
        "1 folders without images, called after no class: docs",
    }
    with caplog.at_level(logging.WARNING):
        data = ImageFolderDataModule(str(tree), class_names=NAMES, num_workers=0, batch_size=50, resize_size=8)
        data.setup("test")
    (message,) = caplog.messages
    assert "7 files are no images: without an extension 2, .txt 2" in message
    assert list(data.notes) == list(list_folder(tree, NAMES).notes)


@pytest.mark.skipif(".avif" not in openable() or ".heic" in openable(), reason="this Pillow reads no AVIF, or HEIF too")
def test_what_becomes_of_them(tree: Path) -> None:
    data = ImageFolderDataModule(str(tree), class_names=NAMES, num_workers=0, batch_size=50, input_size=8)
    data.setup("test")
    (batch,) = data.test_dataloader()
    good = {f"cat/{name}" for name, message in IMAGES.items() if message == "ok"}
    assert set(batch["path"]) == good | {"dog/session1/y.jpg", "dog/linked/z.png", "owl/only.avif"}
    failed = dict(batch["failed"])
    assert failed.keys() == {f"cat/{name}" for name, message in IMAGES.items() if message != "ok"}
    assert all(IMAGES[path.removeprefix("cat/")] in error for path, error in failed.items())


def test_prediction_lists_the_same(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = {path.removeprefix(f"{tree}/") for path in ImageSourcesDataModule([tree]).sources}
    assert found == listed(tree, NAMES).keys()
    with caplog.at_level(logging.WARNING):
        ImageSourcesDataModule([str(tree)])
    assert "7 files are no images" in caplog.text


def test_training_learns_no_folder_of_the_system(tree: Path) -> None:
    data = ImageFolderDataModule(str(tree))
    assert data.train_class_names() == ["cat", "dog", "owl"]


def test_images_beside_their_annotations(tmp_path: Path) -> None:
    """Folders without images do not make a flat folder one of class folders."""
    make_images(tmp_path, "a.png", "b.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/a.xml").touch()
    assert listed(tmp_path, NAMES) == {"a.png": -1, "b.png": -1}
    assert list_folder(tmp_path, NAMES).notes == ("1 files are no images: .xml",)


def test_a_root_one_too_high(tmp_path: Path) -> None:
    make_images(tmp_path, "val/cat/a.png", "train/cat/b.png")
    with pytest.raises(DataError, match=r"2 of 2 class folders match no class.*train holds class folders \(cat\): is"):
        list_folder(tmp_path, NAMES)


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """One that does not end is no reason to stop."""
    make_images(tmp_path, "cat/a.png")
    for path, target in {"cat/self.jpg": "self.jpg", "cat/self": "self", "dog": "dog", "owl": "gone"}.items():
        (tmp_path / path).symlink_to(target)
    assert listed(tmp_path, NAMES) == {"cat/a.png": 0, "cat/self.jpg": 0}
    assert list_folder(tmp_path, NAMES).notes == ("3 links to nowhere: cat/self, dog, owl",)


def test_links_to_and_fro(tmp_path: Path) -> None:
    """Of n folders that all hold links to each other there are n! ways; each folder counts once below each."""
    names = [f"c{k}" for k in range(9)]
    make_images(tmp_path, *(f"{name}/a.png" for name in names))
    for one, other in itertools.permutations(names, 2):
        (tmp_path / one / other).symlink_to(tmp_path / other)
    found = listed(tmp_path, names)
    assert len(found) == 81
    assert found["c1/a.png"] == 1
    assert found.keys() == {path.removeprefix(f"{tmp_path}/") for path in ImageSourcesDataModule([tmp_path]).sources}
    above, again = list_folder(tmp_path, names).notes
    assert above.startswith("324 links to a folder above")
    assert again.startswith("252 links to a folder listed already")


def test_notes_are_text_whatever_names_are(tmp_path: Path) -> None:
    make_images(tmp_path, "cat/a.png")
    (tmp_path / "\udcff").mkdir()
    for path in ("cat/.\udcfe.png", "cat/x.\udcfd"):
        (tmp_path / path).touch()
    (tmp_path / "cat/\udcfc").symlink_to(tmp_path)
    notes = " ".join(list_folder(tmp_path, NAMES).notes).encode().decode()
    assert all(name in notes for name in (r".\xfe.png", r".\xfd", r"cat/\xfc", r"class: \xff"))
    make_images(tmp_path, "\udcff/a.png", "two\nlines/a.png", "cat /a.png")
    with pytest.raises(DataError, match=r"match: 'cat ', 'two\\nlines', \\xff\."):
        list_folder(tmp_path, NAMES)


def test_nothing_but_other_files(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/a.txt").touch()
    with pytest.raises(DataError, match=r"holds no images: .*; 1 files are no images: \.txt"):
        list_folder(tmp_path, NAMES)


class TestIndices:
    def test_numbers_are_indices_in_whatever_order(self, tmp_path: Path) -> None:
        """As in ImageNetV2: in the order of text, 10 comes before 2."""
        make_images(tmp_path, *(f"{k}/a.png" for k in (0, 2, 10, 281, 999)))
        assert listed(tmp_path, imagenet_class_names()) == {f"{k}/a.png": k for k in (0, 2, 10, 281, 999)}
        (note,) = list_folder(tmp_path, imagenet_class_names()).notes
        assert "read as indices of the network's classes (999 is 'toilet tissue')" in note

    def test_names_go_before(self, tmp_path: Path) -> None:
        make_images(tmp_path, "0/a.png", "1/a.png")
        assert listed(tmp_path, ["7", "1", "0"]) == {"0/a.png": 2, "1/a.png": 1}
        assert not list_folder(tmp_path, ["7", "1", "0"]).notes

    def test_a_number_that_may_be_another_classs_name(self, tmp_path: Path) -> None:
        make_images(tmp_path, "0/a.png", "1/a.png")
        with pytest.raises(DataError, match=r"fits several classes: '0' may be one of 2 classes"):
            list_folder(tmp_path, ["01", "00"])

    @pytest.mark.parametrize("folder", ["3", "1000"])
    def test_beyond_the_classes(self, tmp_path: Path, folder: str) -> None:
        make_images(tmp_path, "1/a.png", f"{folder}/a.png")
        with pytest.raises(DataError, match=rf"{folder} is no index of the network's classes, which are 0 to 2"):
            list_folder(tmp_path, NAMES)

    def test_some_numbers_are_no_indices(self, tmp_path: Path) -> None:
        make_images(tmp_path, "cat/a.png", "1/a.png")
        with pytest.raises(DataError, match="1 of 2 class folders match no class"):
            list_folder(tmp_path, NAMES)


def read(root: Path, **options: object) -> dict[str, int]:
    """Path and label of every image that a loader gives."""
    data = ImageFolderDataModule(str(root), class_names=NAMES, num_workers=0, input_size=8, **options)  # type: ignore[arg-type]
    data.setup("test")
    return {
        path: label for batch in data.test_dataloader() for path, label in zip(batch["path"], batch["label"].tolist())
    }


def test_folders_shards_and_label_files_say_the_same(tmp_path: Path) -> None:
    make_images(tmp_path / "deep", "cat/s1/a.png", "cat/b.png", "dog/s1/s2/c.png", "owl/d.png")
    expected = {"cat/s1/a.png": 0, "cat/b.png": 0, "dog/s1/s2/c.png": 1, "owl/d.png": 2}
    assert read(tmp_path / "deep") == expected
    pack_folder(tmp_path / "deep", tmp_path / "shards")
    assert read(tmp_path / "shards") == expected

    flat = {f"{k}.png": label for k, label in enumerate(expected.values())}
    for k, path in enumerate(expected):
        (tmp_path / "flat").mkdir(exist_ok=True)
        shutil.copy(tmp_path / "deep" / path, tmp_path / f"flat/{k}.png")
    labels = tmp_path / "labels.csv"
    labels.write_text("path,class\n" + "".join(f"{path},{NAMES[label]}\n" for path, label in flat.items()))
    assert read(tmp_path / "flat", labels=str(labels)) == flat
    pack_folder(tmp_path / "flat", tmp_path / "flat_shards", labels=LabelFile(labels))
    assert read(tmp_path / "flat_shards") == flat

    for path, label in flat.items():
        (tmp_path / f"numbers/{label}").mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "flat" / path, tmp_path / f"numbers/{label}/{path}")
    by_index = {f"{label}/{path}": label for path, label in flat.items()}
    assert read(tmp_path / "numbers") == by_index
    pack_folder(tmp_path / "numbers", tmp_path / "number_shards")
    assert read(tmp_path / "number_shards") == by_index


def test_a_label_file_goes_before_the_folders(tmp_path: Path) -> None:
    make_images(tmp_path / "images", "cat/a.png", "cat/b.png", "batch7/c.png")
    (tmp_path / "labels.csv").write_text("cat/a.png,owl\nb,cat\n")
    labels = LabelFile(tmp_path / "labels.csv")
    assert listed(tmp_path / "images", NAMES, labels=labels) == {"cat/a.png": 2, "cat/b.png": 0, "batch7/c.png": -1}
    notes = list_folder(tmp_path / "images", NAMES, labels=labels).notes
    assert any("says nothing of 1 images: batch7/c.png" in note for note in notes)
    assert any("do not agree on 1 images, of which the file counts: cat/a.png" in note for note in notes)
    pack_folder(tmp_path / "images", tmp_path / "shards", labels=labels)
    assert read(tmp_path / "shards") == {"cat/a.png": 2, "cat/b.png": 0, "batch7/c.png": -1}


def test_numbers_in_a_label_file_are_told(tmp_path: Path) -> None:
    """They may count from 1."""
    make_images(tmp_path / "images", "a.png", "b.png")
    (tmp_path / "labels.csv").write_text("a.png,1\nb.png,2.0\n")
    labels = LabelFile(tmp_path / "labels.csv")
    assert listed(tmp_path / "images", NAMES, labels=labels) == {"a.png": 1, "b.png": 2}
    (note,) = list_folder(tmp_path / "images", NAMES, labels=labels).notes
    assert "numbers classes, which are read as indices of the network's classes, from 0 (2.0 is 'owl')" in note
    assert not list_folder(tmp_path / "images", ["0", "1", "2.0", "2"], labels=labels).notes
    pack_folder(tmp_path / "images", tmp_path / "shards", labels=labels)
    assert read(tmp_path / "shards") == {"a.png": 1, "b.png": 2}


def test_shards_are_chosen_from_as_a_folder(tmp_path: Path) -> None:
    make_images(tmp_path / "images", *(f"{name}/{k}.png" for name in NAMES for k in range(4)))
    pack_folder(tmp_path / "images", tmp_path / "shards", 5)
    (tmp_path / "labels.csv").write_text("cat/0,owl\ndog/1,cat\n")
    for options in (
        {"sample": 5},
        {"include": "dog"},
        {"limit_per_class": 2},
        {"labels": str(tmp_path / "labels.csv")},
        {"include": ["cat", "owl"], "limit_per_class": 3, "sample": 4, "seed": 7},
    ):
        assert read(tmp_path / "shards", **options) == read(tmp_path / "images", **options)


def test_what_systems_leave_is_in_no_shard(tmp_path: Path) -> None:
    make_images(tmp_path, "a.png")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name in ("@eaDir/a.png", "cat/._a.png", "cat/a.png", "cat/Thumbs.db", "cat/.ipynb_checkpoints/a.png"):
            tar.add(tmp_path / "a.png", name)
    assert read(tmp_path / "0.tar") == {"cat/a.png": 0}
    (tmp_path / "deeper").mkdir()
    (tmp_path / "0.tar").rename(tmp_path / "deeper/0.tar")
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"holds no images.*\.tar\. Name the folder of the shards"):
        read(tmp_path)


def test_shards_of_others_with_folders_above_and_below(tmp_path: Path) -> None:
    make_images(tmp_path, "val/dog/s1/a.png")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        tar.add(tmp_path / "val/dog/s1/a.png", "val/dog/s1/a.png")
    assert read(tmp_path / "0.tar") == {"val/dog/s1/a.png": 1}


def test_subsets_go_round_the_classes(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{name}/{k}.png" for name in NAMES for k in range(9)))
    found = listed(tmp_path, NAMES, subset=Subset(limit_per_class=3))
    assert list(found.values()) == [0, 1, 2] * 3
    assert read(tmp_path, include=["cat", "owl"], sample=5).keys() < {
        f"{name}/{k}.png" for name in ("cat", "owl") for k in range(9)
    }
