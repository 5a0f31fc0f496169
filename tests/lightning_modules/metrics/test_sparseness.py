from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules import GradCAM
from lightning_modules.metrics import Sparseness, gini_index
from tests.references import gini_index_by_pairs

NOTHING: Any = None


def sparseness(maps: torch.Tensor) -> torch.Tensor:
    return Sparseness().score(maps, NOTHING, NOTHING, GradCAM())["sparseness"]


def test_against_the_mean_difference_of_pairs() -> None:
    values = torch.rand(3, 40, dtype=torch.float64) ** 4
    values[1, ::2] = 0
    expected = torch.tensor([gini_index_by_pairs(row.tolist()) for row in values], dtype=torch.float64)
    torch.testing.assert_close(gini_index(values), expected, rtol=1e-12, atol=0)


def test_by_hand() -> None:
    one = torch.zeros(1, 1, 4, 5)
    one[0, 0, 2, 2] = -3
    assert sparseness(one).item() == pytest.approx(1 - 1 / 20)
    # The magnitudes of a pixel's channels are added: all pixels have 2.
    signed = torch.tensor([2.0, -1, 0]).view(1, 3, 1, 1) * torch.ones(1, 3, 4, 4)
    signed[..., :2] = torch.tensor([-1.0, 1, 1]).view(1, 3, 1, 1)
    assert sparseness(signed).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("value", [0.0, 3.0, torch.nan, torch.inf])
def test_maps_that_show_nothing(value: float) -> None:
    maps = torch.rand(2, 1, 8, 8)
    maps[1] = value
    assert sparseness(maps).isnan().tolist() == [False, True]
