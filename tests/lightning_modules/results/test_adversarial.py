from __future__ import annotations

import pytest
import torch

from lightning_modules.attacks.budgets import parse_eps
from lightning_modules.results.adversarial import in_bytes, picture_file


def test_pixels_that_were_bytes_are_those_bytes() -> None:
    levels = torch.arange(256)
    assert torch.equal(in_bytes(levels.float() / 255).long(), levels)
    assert in_bytes(torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0])).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("a.jpg", "adversarial/4_255/a.jpg.png"),
        ("a.jpg.png", "adversarial/4_255/a.jpg.png.png"),
        ("shard-00.tar/n01/a.jpg", "adversarial/4_255/shard-00.tar/n01/a.jpg.png"),
        ("é ü/ß.png", "adversarial/4_255/é ü/ß.png.png"),
    ],
)
def test_a_picture_lies_where_its_image_does(path: str, file: str) -> None:
    assert picture_file(path, parse_eps("4/255")) == file


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.jpg", "a/../../../b.jpg", "a/" + "ä" * 120 + ".jpg"])
def test_no_picture_lies_elsewhere_or_has_a_name_that_is_too_long(path: str) -> None:
    folder, budget, name = picture_file(path, 0.1).split("/")
    assert (folder, budget) == ("adversarial", "0.1")
    assert len(name) == 64 + 4
    assert name != picture_file(path + "x", 0.1).split("/")[2]
