from __future__ import annotations

import math
from typing import Any

import pytest

from lightning_modules import InputError
from lightning_modules.attacks.budgets import format_eps, parse_eps, parse_sweep


def test_every_step_of_a_pixel_is_read_and_written_back() -> None:
    for k in range(1, 255):
        assert parse_eps(f"{k}/255") == k / 255
        assert format_eps(k / 255) == f"{k}/255"


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
