"""Scores are of what pixels are worth to each other, so they are the same of a map as large or small as may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules import ForwardPass, GradCAM, load_network
from lightning_modules.figures.style import ScaledMap
from lightning_modules.metrics import (
    ROAD,
    AverageDrop,
    Infidelity,
    InsertionDeletion,
    Sparseness,
    class_discrimination,
    energy_in_box,
    localization_box,
    pointing_game,
    rank_correlation,
    structural_similarity,
    top_overlap,
)
from tests.lightning_modules.fragile import NETWORK, batch_of, dim_images

LEFT = torch.zeros(2, 32, 32, dtype=torch.bool)
LEFT[:, :, :16] = True
OTHER = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
EXTREMES = [
    (torch.float32, 2.0**127),
    (torch.float32, 2.0**-110),
    (torch.float16, 2.0**15),
    (torch.float16, 2.0**-7),
    (torch.float64, 2.0**1000),
    (torch.float64, 2.0**-1000),
]
"""Powers of two, so that what is expected is the same number."""


def metric(of: Any) -> Callable[[Tensor], Tensor]:
    images = dim_images(2)
    seen = ForwardPass(load_network(NETWORK, "random"), images)
    return lambda maps: of.score(maps, seen, batch_of(images), GradCAM())[of.columns[0]]


SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "pointing_game": lambda maps: pointing_game(maps, LEFT),
    "energy_in_box": lambda maps: energy_in_box(maps, LEFT),
    "localization_box": localization_box,
    "class_discrimination": lambda maps: class_discrimination(maps, LEFT, ~LEFT),
    "rank_correlation": lambda maps: rank_correlation(maps, OTHER),
    "top_overlap": lambda maps: top_overlap(maps, OTHER),
    "structural_similarity": lambda maps: structural_similarity(maps, OTHER),
    "average_drop": metric(AverageDrop()),
    "insertion": metric(InsertionDeletion(step=256)),
    "sparseness": metric(Sparseness()),
    "infidelity": metric(Infidelity(n_samples=4)),
    "road": metric(ROAD([50])),
}


def maps_with(channels: int) -> Tensor:
    """Maps of 10 bits a pixel, which every dtype holds exactly; brighter at the left."""
    maps = (1023 * torch.rand(2, channels, 32, 32) ** 2).round() / 1024
    return maps * (1 + LEFT[:, None]) / 2


@pytest.mark.parametrize(("dtype", "factor"), EXTREMES)
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("channels", [1, 3])
def test_scores(name: str, channels: int, dtype: torch.dtype, factor: float) -> None:
    maps = maps_with(channels)
    expected = SCORES[name](maps)
    assert expected.isfinite().all()
    found = SCORES[name](maps.to(dtype) * factor)
    torch.testing.assert_close(found.to(expected.dtype), expected, rtol=1e-6, atol=1e-6)


def test_the_named_case() -> None:
    """Half of the energy, not none of it: the sum of two pixels of 3e38 is infinite in float32."""
    maps = torch.zeros(1, 1, 32, 32)
    maps[0, 0, 0, 0] = maps[0, 0, 0, 31] = 3e38
    assert energy_in_box(maps, LEFT[:1]).item() == 0.5
    assert energy_in_box((maps / 3e38 * 6e4).half(), LEFT[:1]).item() == 0.5


@pytest.mark.parametrize("factor", [2.0**127, 2.0**-110])
def test_figures(factor: float) -> None:
    maps = maps_with(3)[0] - 0.25
    expected, found = ScaledMap(maps), ScaledMap(maps * factor)
    assert found.scale == expected.scale * factor
    assert (found.alone == expected.alone).all()
    assert (found.magnitude == expected.magnitude).all()
