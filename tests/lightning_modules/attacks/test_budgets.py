from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch

from lightning_modules import InputError
from lightning_modules.attacks.budgets import format_eps, parse_eps, parse_sweep


def test_every_step_of_a_pixel_is_read_and_written_back() -> None:
    for k in range(1, 255):
        assert parse_eps(f"{k}/255") == k / 255
        assert format_eps(parse_eps(f"{k}/255")) == f"{k}/255"
        assert format_eps(k / 255) in (f"{k}/255", "0.2", "0.4", "0.6", "0.8")
        assert parse_eps(format_eps(k / 255)) == k / 255


TYPED = ["0.25/255", "1/255", "1e-3", "0.03", "1/3", "0.50", " 8 / 255 ", "8.5/255", "1e-12", "255/255"]


def test_what_was_typed_is_said_back() -> None:
    for text in TYPED:
        assert format_eps(parse_eps(text)) == text.replace(" ", "")
    for copied in (copy.deepcopy, lambda sweep: pickle.loads(pickle.dumps(sweep))):
        sweep = copied(parse_sweep(["8/255", "0.25/255"], "inf"))
        assert list(map(format_eps, sweep)) == ["0.25/255", "8/255"]
        assert sweep == [0.25 / 255, 8 / 255]


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        *((0, "0"), (0.1, "0.1"), (1.0, "1"), (0.25 / 255, "0.25/255"), (1.5 / 255, "1.5/255"), (3.0, "3")),
        *((1 / 3, "85/255"), (2 / 7, "0.285714"), (0.123456, "0.123456"), (1e-9, "1e-09")),
        *((254.5, "254.5"), (0.12345678, "0.12345678"), (0.1 / 255, "0.1/255")),
        (torch.tensor(4 / 255).item(), "4/255"),
    ],
)
def test_what_was_computed_is_said_in_the_shortest_way(eps: float, text: str) -> None:
    assert format_eps(eps) == text
    assert format_eps(parse_eps(eps)) == text


def test_sweep_is_sorted_and_leaves_out_zero() -> None:
    assert parse_sweep(["8/255", 0.5, "0", "1/255"], "inf") == [1 / 255, 8 / 255, 0.5]


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        (["-1/255"], "at least 0, got -1/255"),
        ([-0.1], "at least 0, got -0.1"),
        ([8], r"at most 1.*got 8\. Did you mean 8/255\?"),
        (["8.0"], r"got 8\.0\. Did you mean 8/255\?"),
        (["300/255"], r"at most 1.*got 300/255\.$"),
        ([math.nan], "at least 0, got nan"),
        (["inf"], "at least 0, got inf"),
        (["four"], r"'four' is no number and no fraction such as 4/255"),
        (["1/0"], "no number"),
        (["4/255", 4 / 255], "eps 4/255 twice"),
        ([], "no eps above 0"),
        ([0], "no eps above 0"),
    ],
)
def test_bad_sweeps(eps: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_sweep(eps, "inf")


def test_lengths_of_whole_images_may_exceed_one() -> None:
    assert parse_sweep([3], 2) == [3]
