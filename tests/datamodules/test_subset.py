from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules import DataError, list_folder
from datamodules.subset import Subset
from tests.images import make_images

PATHS = [f"{folder}/{k}.jpg" for folder in ("n02100000", "n02200000", "n03000000") for k in range(40)]
LABELS = np.repeat([7, 3, 5], 40)


def chosen(subset: Subset, paths: list[str] = PATHS, labels: np.ndarray = LABELS) -> set[str]:
    return {path for path, is_taken in zip(paths, subset.mask(paths, labels)) if is_taken}


def test_all() -> None:
    assert Subset().is_all
    assert chosen(Subset()) == set(PATHS)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("n021*",), PATHS[:40]),
        (("n021*", "n03000000"), PATHS[:40] + PATHS[80:]),
        (("n03000000/",), PATHS[80:]),
        (("*/1.jpg",), [PATHS[1], PATHS[41], PATHS[81]]),
        (("n0[12]*/3?.jpg",), [*PATHS[30:40], *PATHS[70:80]]),
    ],
    ids=["prefix", "two", "folder", "name", "class"],
)
def test_patterns(patterns: tuple[str, ...], expected: list[str]) -> None:
    assert chosen(Subset(include=patterns)) == set(expected)


def test_a_pattern_names_a_folder_at_any_depth() -> None:
    paths = ["cat/s1/a.jpg", "cat/s2/a.jpg", "dog/s1/a.jpg"]
    assert chosen(Subset(include=("cat/s1",)), paths, np.zeros(3)) == {"cat/s1/a.jpg"}
    assert chosen(Subset(include=("*/s1",)), paths, np.zeros(3)) == {"cat/s1/a.jpg", "dog/s1/a.jpg"}


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("cat [old]", "cat [old]/a.jpg"),
        ("cat [old]/a?.jpg", "cat [old]/a?.jpg"),
        ("./cat", "cat/a.jpg"),
        ("caf\u00e9*", "cafe\u0301/a.jpg"),
        ("two\nlines", "two\nlines/a.jpg"),
    ],
    ids=["brackets", "question", "here", "composed", "lines"],
)
def test_names_that_are_no_patterns(pattern: str, path: str) -> None:
    assert chosen(Subset(include=(pattern,)), [path, "dog/a.jpg"], np.zeros(2)) == {path}


def test_what_is_told(tmp_path: Path) -> None:
    labels = np.where(np.arange(120) < 7, -1, LABELS)
    assert Subset(include=("n021*", "n09*", "N021*"), limit_per_class=1).notes(PATHS, labels) == [
        "data.include has 2 patterns that match no image: n09*, N021*",
        "data.limit_per_class leaves out 7 images without a label",
    ]
    assert Subset(include=("n021*", "n03*"), limit_per_class=1, sample=10).notes(PATHS, LABELS) == []
    make_images(tmp_path, "a.png", "cat.png")
    listing = list_folder(tmp_path, ["cat"], subset=Subset(include=("a*", "b*")))
    assert listing.notes == ("data.include has 1 patterns that match no image: b*",)


def test_a_pattern_without_a_match() -> None:
    with pytest.raises(DataError, match=r"data\.include n9\* matches none of 120 images, .* first is n02100000/0\.jpg"):
        chosen(Subset(include=("n9*",)))


def test_so_many_of_each_class() -> None:
    found = chosen(Subset(limit_per_class=6))
    assert [sum(path.startswith(folder) for path in found) for folder in ("n021", "n022", "n03")] == [6, 6, 6]
    assert chosen(Subset(limit_per_class=3)) < found
    # Unlabelled images belong to none.
    labels = np.where(np.arange(120) % 2, LABELS, -1)
    assert len(chosen(Subset(limit_per_class=100), PATHS, labels)) == 60
    with pytest.raises(DataError, match=r"data\.limit_per_class needs images with labels"):
        chosen(Subset(limit_per_class=1), PATHS, np.full(120, -1))


def test_samples_nest_and_do_not_ask_what_lies_beside() -> None:
    large, small = chosen(Subset(sample=60)), chosen(Subset(sample=20))
    assert (len(large), len(small)) == (60, 20)
    assert small < large
    assert chosen(Subset(sample=60, seed=1)) != large
    # The order of the listing does not matter, nor images that were not chosen.
    order = np.random.default_rng(0).permutation(120)
    assert chosen(Subset(sample=20), [PATHS[k] for k in order], LABELS[order]) == small
    some = sorted(large)
    assert chosen(Subset(sample=20), some, np.zeros(60)) == small


def test_they_are_taken_in_order() -> None:
    found = chosen(Subset(include=("n02*",), limit_per_class=10, sample=12))
    assert len(found) == 12
    assert found < chosen(Subset(include=("n02*",), limit_per_class=10))
    assert chosen(Subset(sample=1000)) == set(PATHS)


@pytest.mark.parametrize("name", ["limit_per_class", "sample"])
def test_numbers_below_one(name: str) -> None:
    with pytest.raises(DataError, match=rf"data\.{name} must be at least 1, got 0"):
        Subset(**{name: 0})
