from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from datamodules import DataError
from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError
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


PADDED = [f"{k:03d}" for k in range(1, 21)]
LIZARD = "common iguana, iguana, Iguana iguana"
KERAS = [name.replace(" ", "_") for name in IMAGENET]
KERAS[134], KERAS[639] = "crane", "maillot"


@pytest.mark.parametrize(
    ("wanted", "names", "index"),
    [
        ("012", PADDED, 11),
        (12, PADDED, 12),
        ("012", [str(k) for k in range(20)], 12),
        ("1", ["1", "0"], 0),
        ("on", ["off", "on", "null", "1e3", "1_0", "1:30"], 1),
        ("1_0", ["off", "1_0", "10"], 1),
        ("great_white_shark", IMAGENET, 2),
        ("great white shark", KERAS, 2),
        ("a_b", ["a b", "a_b"], 1),
        ("cafe\u0301", ["tea", "caf\u00e9"], 1),
        ("caf\u00e9", ["tea", "cafe\u0301"], 1),
        ("n02012849", KERAS, 134),
        ("all", ["cat", "all"], 1),
        *((synonym, ["tench, Tinca tinca", LIZARD], 1) for synonym in ("iguana", "common iguana", "Iguana_iguana")),
        ("iguana", [LIZARD, "iguana"], 1),
        ("2", ["a", "b", "2, 1"], 2),
        ("crane, bird", ["a:1", "crane, bird"], 1),
        (np.int64(1), ["cat", "dog"], 1),
    ],
)
def test_names_as_they_are_written(wanted: Any, names: list[str], index: int) -> None:
    assert ClassTable(names).index(wanted) == index


@pytest.mark.parametrize("wanted", ["1_0", "1e3", "0x10", "1.0", "+1", " 1", "٣", "9" * 5000, True, None, 1.0, "Heart"])
def test_what_is_no_number_of_a_class(wanted: Any) -> None:
    with pytest.raises(UnknownClassError):
        ClassTable(SHAPES * 5).index(wanted)


@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        ("crane", KERAS, "2 classes.*class 134, called 'crane': 134 or n02012849; class 517, .*: 517 or n03126707"),
        ("cat", ["cat", "dog", "cat"], "class 0, called 'cat': 0; class 2, called 'cat': 2. Write what stands behind"),
        ("a_b c", ["a b_c", "a b c"], "class 0, called 'a b_c': 0 or a b_c; class 1"),
        ("caf\u00e9", ["caf\u00e9", "cafe\u0301"], "may be one of 2 classes"),
        (
            "iguana",
            [LIZARD, "marine iguana, iguana"],
            "class 0, called 'common iguana, .*: 0 or common iguana, iguana, ",
        ),
        ("12", PADDED, "class 11, called '012': 012; class 12, called '013': 013"),
        ("1", ["1", "1"], "class 0, called '1': 0; class 1, called '1': give it another name"),
    ],
)
def test_what_fits_several_classes_is_refused(wanted: str, names: list[str], message: str) -> None:
    with pytest.raises(AmbiguousClassError, match=message):
        ClassTable(names).index(wanted)


def test_a_folder_is_named_by_a_synonym() -> None:
    table = ClassTable(["tench", LIZARD, "crane, bird", "crane, machine"])
    assert table.of_folders(["tench", "common iguana", "bird"]) == [0, 1, 2]
    with pytest.raises(DataError, match=r"'crane' may be one of 2 classes.*2 or crane, bird; class 3"):
        table.of_folders(["crane"])


def test_folders_of_twins() -> None:
    table = ClassTable(KERAS)
    assert table.of_folders(["n02012849", "n03126707", "great white shark"]) == [134, 517, 2]
    with pytest.raises(DataError, match=r"fits several classes: 'crane' may be .*n02012849"):
        table.of_folders(["crane"])
    with pytest.raises(DataError, match="1 of 1 class folders match no class"):
        ClassTable(PADDED).of_folders(["12"])


@pytest.mark.parametrize("names", ["cat", {"0": "cat"}, {"cat"}, [0, 1], np.arange(3), ["cat", None], b"cat", 3])
def test_names_that_are_no_list_of_text(names: Any) -> None:
    with pytest.raises(DataError, match="class_names should be a list of the classes' names as text"):
        ClassTable(names)


def test_names_in_an_array() -> None:
    names = ClassTable(np.array(["cat", "dog"])).names
    assert names == ["cat", "dog"]
    assert {type(name) for name in names} == {str}


def test_near_names_however_they_are_written() -> None:
    with pytest.raises(UnknownClassError) as caught:
        ClassTable(IMAGENET).index("Great_White_Sharc")
    assert caught.value.near[0] == "great white shark"


def test_a_word_of_an_option_that_a_class_is_called() -> None:
    with pytest.warns(UserWarning, match="model.target label means the folder's class, .*: class 1, called 'label': 1"):
        ClassTable(["cat", "label"]).warn_of_word("model.target", "label", "the folder's class")
