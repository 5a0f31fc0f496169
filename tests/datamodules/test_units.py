from __future__ import annotations

import pytest

from datamodules import DataError
from datamodules.imagenet import imagenet_class_names
from datamodules.units import Unit, parse_units

CHANNELS = {"features.28": 4, "classifier.6": 1000}


def names(wanted: object, class_names: list[str] | None = None, layer: str | None = None) -> list[str]:
    units = parse_units(wanted, class_names or imagenet_class_names(), CHANNELS, layer)  # type: ignore[arg-type]
    return [unit.name for unit in units]


def test_index_name_and_wnid() -> None:
    units = parse_units([207, "tabby", "n02123045", "281", "n01440764"], imagenet_class_names())
    assert [(unit.target, unit.name, unit.layer) for unit in units] == [
        (207, "golden retriever", None),
        (281, "tabby", None),
        (0, "tench", None),
    ]


def test_all_and_single() -> None:
    assert names("all") == imagenet_class_names()
    assert names(3) == ["tiger shark"]
    assert names("tench") == ["tench"]


def test_channels() -> None:
    assert names(["features.28:3", "tabby", "classifier.6:999"]) == ["features.28:3", "tabby", "classifier.6:999"]
    assert names("features.28:*") == names("features.28:all") == [f"features.28:{k}" for k in range(4)]
    assert names(["features.28:2", "features.28:*"])[:2] == ["features.28:2", "features.28:0"]
    assert names([1, "0"], layer="features.28") == ["features.28:1", "features.28:0"]
    assert names("all", layer="features.28") == names("*", layer="features.28") == names("features.28:*")


def test_class_names_that_look_like_something_else() -> None:
    assert names(["a:1", "7"], ["a:1", "7", "b"]) == ["a:1", "7"]
    # A number is an index, its text a name first.
    assert names([1, "1"], ["1", "0"]) == ["0", "1"]
    with pytest.warns(UserWarning, match="data.classes all means every class, .*: class 1, called 'all': 1"):
        assert names("all", ["cat", "all"]) == ["cat", "all"]
    with pytest.raises(DataError, match=r"names features\.28:\*, which is a class and may be a channel of the layer"):
        names("features.28:*", ["cat", "features.28:*"])
    with pytest.raises(DataError, match=r"names features\.28:3, which is a class and may be a channel of the layer"):
        names("features.28:3", ["cat", "features.28:3"])
    assert names("features.28:9", ["cat", "features.28:9"]) == ["features.28:9"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("tabi", r"'tabi', which is no class.*Did you mean one of: .*tabby"),
        (1000, "names class 1000; the network has classes 0 to 999"),
        (-1, "names class -1"),
        ("features.99:3", "layer 'features.99', which the network does not have; it has features.28, classifier.6"),
        ("features.28:4", "features.28:4; the channels of features.28 are 0 to 3, or \\*, all of them"),
        ("features.28:x", "features.28:x; the channels"),
        ([], "data.classes is empty"),
        ([True], "names True, which is no class"),
        ("1_0", "names '1_0', which is no class"),
        ("features.28:²", "the channels of features.28 are 0 to 3"),
    ],
)
def test_bad_units(wanted: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        names(wanted)


def test_a_class_of_two() -> None:
    with pytest.raises(DataError, match=r"data\.classes: 'cat' may be one of 2 classes"):
        names(["cat"], ["cat", "dog", "cat"])


@pytest.mark.parametrize(
    ("unit", "stem"),
    [
        (Unit(3, None, "[/b] a|b/../$x\n<b>"), "0003__b_a_b_.._x_b_"),
        (Unit(3, None, "\u732b"), "0003_\u732b"),
        (Unit(3, None, "\u732b" * 200), "0003_" + "\u732b" * 53),
        (Unit(3, None, "x" * 300), "0003_" + "x" * 160),
        (Unit(3, "a" * 300 + ".conv", "channel"), "a" * 155 + ".conv_0003"),
    ],
    ids=["odd letters", "Chinese", "long Chinese", "long", "long layer"],
)
def test_names_of_files_are_ones_that_every_file_system_takes(unit: Unit, stem: str) -> None:
    assert unit.stem == stem
    assert len(f".{stem}_seed0_shifts_only.png.tmp".encode()) < 255
