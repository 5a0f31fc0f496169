from __future__ import annotations

import pytest

from datamodules import DataError
from datamodules.classes import ClassTable, UnknownClassError
from datamodules.imagenet import imagenet_class_names

SHAPES = ["arrow", "circle", "heart", "ring"]
IMAGENET = imagenet_class_names()


@pytest.mark.parametrize(
    ("wanted", "names", "index"),
    [
        ("heart", SHAPES, 2),
        ("3", SHAPES, 3),
        (3, SHAPES, 3),
        ("003", SHAPES, 3),
        # A name goes before a number, but a number that is none in writing is none.
        ("1", ["2", "1", "0"], 1),
        (1, ["2", "0", "1"], 1),
        ("0", ["2", "0", "1"], 1),
        ("tabby", IMAGENET, 281),
        ("n02123045", IMAGENET, 281),
        ("281", IMAGENET, 281),
        # The network's own names, even if they look like ImageNet's ids.
        ("n02123045", ["n01440764", "n02123045"], 1),
    ],
)
def test_name_then_wordnet_id_then_index(wanted: str | int, names: list[str], index: int) -> None:
    assert ClassTable(names).index(wanted) == index


@pytest.mark.parametrize("wanted", ["4", 4, -1, "-1", "n02123045", "Heart", "heart ", "", "1.0", "²"])
def test_no_such_class(wanted: str | int) -> None:
    with pytest.raises(UnknownClassError, match="is no class of the network") as caught:
        ClassTable(SHAPES).index(wanted)
    assert caught.value.is_index == (wanted in ("4", 4, -1, "-1"))


def test_near_names() -> None:
    def near(wanted: str, names: list[str]) -> list[str]:
        with pytest.raises(UnknownClassError) as caught:
            ClassTable(names).index(wanted)
        return caught.value.near

    assert near("heat", SHAPES) == ["heart"]
    assert near("0-0-0", IMAGENET) == IMAGENET[:5]
    assert "n02123045" in near("n0212304", IMAGENET)


def test_a_folder_is_named_never_numbered() -> None:
    table = ClassTable(SHAPES)
    assert [table.named(text) for text in ("ring", "0", "n02123045")] == [3, None, None]
    assert table.of_folders(["ring", "arrow"]) == [3, 0]
    with pytest.raises(DataError, match=r"1 of 2 class folders match no class.*without a match: 0\. .*arrow, circle"):
        table.of_folders(["ring", "0"])
