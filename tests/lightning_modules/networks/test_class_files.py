from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from lightning_modules import InputError
from lightning_modules.networks.class_names import find_class, read_class_names
from lightning_modules.networks.libraries.torchvision import imagenet_class_names

CAT_DOG = ["cat", "dog"]


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (["cat", "dog"], CAT_DOG),
        (("cat", "dog"), CAT_DOG),
        (np.array(["cat", "dog"]), CAT_DOG),
        (pd.Series(["cat", "dog"]), CAT_DOG),
        ({"cat": 1, "dog": 2}.keys(), CAT_DOG),
        ({0: "cat", 1: "dog"}, CAT_DOG),
        ({1: "dog", 0: "cat"}, CAT_DOG),
        ({"1": "dog", "0": "cat"}, CAT_DOG),
        ({"00": "cat", "01": "dog"}, CAT_DOG),
        ({"dog": 1, "cat": 0}, CAT_DOG),
        ({"dog": np.int64(1), "cat": np.int64(0)}, CAT_DOG),
        ({"dog": "1", "cat": "0"}, CAT_DOG),
        ({"id2label": {"0": "cat", "1": "dog"}, "model_type": "vit"}, CAT_DOG),
        ([3, 1], ["3", "1"]),
        (np.array([3, 1]), ["3", "1"]),
        (torch.tensor([3, 1]), ["3", "1"]),
        (["012", "1e3", "null"], ["012", "1e3", "null"]),
        # Names that are digits: only one side holds 0, 1, ..., or both say the same.
        ({"0": 0, "1": 1, "10": 2, "2": 3}, ["0", "1", "10", "2"]),
        ({"0": 0, "1": 1, "2": 2}, ["0", "1", "2"]),
        ({"7": 0, "3": 1}, ["7", "3"]),
        ([["n02012849", "crane"], ["n03126707", "crane"], ["n01440764", "tench"]],
         ["crane (n02012849)", "crane (n03126707)", "tench"]),
        ({"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}, ["tench", "goldfish"]),
    ],
)  # fmt: skip
def test_forms(said: Any, names: list[str]) -> None:
    assert read_class_names(said) == names


def test_twins_are_taken_and_refused_by_name(tmp_path: Path) -> None:
    """All published lists of ImageNet's classes have two cranes and two maillots."""
    names = [name.replace(" ", "_") for name in imagenet_class_names()]
    names[134] = names[517] = "crane"
    (tmp_path / "names.txt").write_text("\n".join(names))
    for said in (names, tmp_path / "names.txt", dict(enumerate(names))):
        assert read_class_names(said) == names
    with pytest.raises(
        InputError, match=r"class 134, called 'crane': 134 or n02012849; class 517, .*: 517 or n0312670"
    ):
        find_class("crane", read_class_names(names))
    assert find_class("n03126707", names) == find_class(517, names) == 517
    with pytest.raises(InputError, match="class 0, called 'cat': 0; class 2, called 'cat': 2"):
        find_class("cat", read_class_names(["cat", "dog", "cat"]))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("cat", r"class_names is 'cat', and no such file.*\[cat, dog\]"),
        ("cat,dog", "no such file"),
        ("a\0b", "no such file"),
        ([], "holds no names"),
        ({}, "should hold names"),
        (["cat", ""], "output 1 is called ''"),
        (["cat", "a\nb"], "output 1 is called"),
        (["cat", "\ud800"], "output 1 is called"),
        (["cat", None], "output 1 is called None.*quotes"),
        (["cat", True], "output 1 is called True.*quotes"),
        ([1e3, "cat"], "output 0 is called 1000.0.*quotes"),
        (["cat", ["dog"]], r"output 1 is called \['dog'\]"),
        (np.array([["cat"], ["dog"]]), "output 0"),
        (np.array("cat"), "should be a list of names"),
        ({"cat", "dog"}, "in the order of the outputs"),
        (5, "should be a list of names"),
        ({0: "cat", 2: "dog"}, "indices 0 to 1, each once, got {0: 'cat', 2: 'dog'}"),
        ({1: "cat", 2: "dog"}, "indices 0 to 1"),
        ({"cat": 0, "dog": 0}, "indices 0 to 1"),
        ({"0": "cat", 0: "dog"}, "indices 0 to 1"),
        ({"cat": "dog"}, "each once, got"),
        ({"0": 1, "1": 2, "2": 0}, "either may be the names"),
    ],
)  # fmt: skip
def test_doubt(said: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_class_names(said)


@pytest.mark.parametrize(
    "content",
    [
        "cat\ndog", "cat\ndog\n", "cat\r\ndog\r\n\r\n", "cat\rdog", "\ufeffcat\ndog\n", " cat \ndog\t\n",
        "0 cat\n1 dog", "1: dog\n0: cat", "0,cat\n1,dog", "n02123045 cat\nn02099601 dog",
        "n02123045, cat\nn02099601, dog",
        '["cat", "dog"]', '{"dog": 1, "cat": 0}', '{"0": ["n02123045", "cat"], "1": ["n02099601", "dog"]}',
        '\ufeff {"0": "cat", "1": "dog"}', "[cat\n[dog",
    ],
)  # fmt: skip
def test_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.txt").write_bytes(content.encode())
    expected = ["[cat", "[dog"] if content.startswith("[cat") else CAT_DOG
    assert read_class_names(str(tmp_path / "names.txt")) == read_class_names(tmp_path / "names.txt") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\n\ndog", "line 2 is empty"),
        (b"\ncat", "line 1 is empty"),
        (b"", "holds no names"),
        (b'{"0": "cat", "0": "dog"}', "has a key twice, among 0, 0"),
        (b'{"0": "cat", "2": "dog"}', "names.txt should have the indices 0 to 1"),
        (b"caf\xe9\n", "in UTF-8"),
        ("cat\n".encode("utf-16"), "in UTF-8"),
        (b"cat\0", "output 0 is called"),
    ],
)
def test_files_in_doubt(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_class_names(tmp_path / "names.txt")


def test_json_has_to_be_json(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text("cat\ndog")
    with pytest.raises(InputError, match=r"names\.json is not JSON: Expecting value"):
        read_class_names(tmp_path / "names.json")
    with pytest.raises(InputError, match="a folder; it should be"):
        read_class_names(tmp_path)


def test_lines_that_begin_with_other_numbers_are_names(tmp_path: Path) -> None:
    (tmp_path / "coins.txt").write_text("1 cent\n2 cent\n5 cent\n")
    assert read_class_names(tmp_path / "coins.txt") == ["1 cent", "2 cent", "5 cent"]


def test_imagenets_ids_in_order_are_imagenet(tmp_path: Path) -> None:
    """Whatever the file calls its classes, so that WordNet ids go on to name them."""
    rows = (Path(__file__).parents[3] / "datamodules/imagenet_classes.csv").read_text().splitlines()
    ids = [match[0] for row in rows if (match := re.search(r"n\d{8}", row))]
    content = {str(index): [wnid, f"name_{index}"] for index, wnid in enumerate(ids)}
    (tmp_path / "index.json").write_text(json.dumps(content))
    assert len(ids) == 1000
    assert read_class_names(tmp_path / "index.json") == imagenet_class_names()
    content["0"], content["1"] = content["1"], content["0"]
    (tmp_path / "index.json").write_text(json.dumps(content))
    assert read_class_names(tmp_path / "index.json")[:3] == ["name_1", "name_0", "name_2"]
