from __future__ import annotations

from pathlib import Path

import pytest

from datamodules import DataError, list_folder
from datamodules.imagenet import imagenet_class_names
from datamodules.listing import match_labels
from tests.images import make_images


def listed(root: Path, class_names: list[str] | None = None) -> list[tuple[str, int]]:
    listing = list_folder(root, class_names)
    return [(listing.path(k), int(listing.labels[k])) for k in range(len(listing))]


def test_wnids_decide_labels_of_a_part_of_imagenet(tmp_path: Path) -> None:
    make_images(tmp_path, "n02123045/a.JPEG", "n01440764/b.jpg", "n02123045/c.png", "n15075141/d.webp")
    assert listed(tmp_path, imagenet_class_names()) == [
        ("n01440764/b.jpg", 0),
        ("n02123045/a.JPEG", 281),
        ("n15075141/d.webp", 999),
        ("n02123045/c.png", 281),
    ]


def test_class_names_decide_labels(tmp_path: Path) -> None:
    make_images(tmp_path, "dog/a.png", "cat/b.png")
    assert listed(tmp_path, ["ant", "dog", "cat"]) == [("cat/b.png", 2), ("dog/a.png", 1)]
    assert listed(tmp_path, None) == [("cat/b.png", 0), ("dog/a.png", 1)]


def test_the_checkpoints_own_wnids(tmp_path: Path) -> None:
    """A network trained on folders named by WordNet ids has these as its class names."""
    make_images(tmp_path, "n02123045/a.png")
    assert listed(tmp_path, ["n01440764", "n02123045"]) == [("n02123045/a.png", 1)]


def test_neither_matches(tmp_path: Path) -> None:
    make_images(tmp_path, "dog/a.png", "n02123045/b.png")
    with pytest.raises(DataError, match=r"1 of 2 .*without a match: n02123045\. .*network: ant, dog\."):
        list_folder(tmp_path, ["ant", "dog"])
    with pytest.raises(DataError, match=r"without a match: dog\. .*tench, goldfish.*1000 in all.*WordNet id"):
        list_folder(tmp_path, imagenet_class_names())


def test_flat_folder(tmp_path: Path) -> None:
    make_images(tmp_path, "b.png", "a.JPG", ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    assert listed(tmp_path, ["ant"]) == [("a.JPG", -1), ("b.png", -1)]


def test_first_images_show_different_classes(tmp_path: Path) -> None:
    make_images(tmp_path, *(f"{c}/{k}.png" for c in "abc" for k in range(3)), "c/9.png")
    assert [label for _, label in listed(tmp_path)] == [0, 1, 2] * 3 + [2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no images"),
        (["a/b/c.png"], "holds no images.*lie deeper"),
        (["a.png", "b/c.png"], r"holds images \(a.png, ...\) beside folders \(b, ...\)"),
    ],
)
def test_unusable_folders(tmp_path: Path, names: list[str], message: str) -> None:
    make_images(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        list_folder(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        list_folder(tmp_path / "nowhere")
    make_images(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png is not a folder"):
        list_folder(tmp_path / "a.png")


def test_ambiguous_names_of_imagenet_are_apart() -> None:
    names = imagenet_class_names()
    assert len(set(names)) == 1000
    assert match_labels(names, names) == list(range(1000))
