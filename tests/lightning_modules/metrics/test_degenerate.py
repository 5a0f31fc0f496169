"""A map that shows nothing has no score, whichever metric is asked, and however it shows nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import GradCAM, Saliency
from lightning_modules.methods.maps import shows_something
from lightning_modules.metrics import (
    ROAD,
    AttributionMetric,
    AverageDrop,
    ClassDiscrimination,
    EnergyInBox,
    Infidelity,
    InsertionDeletion,
    LocalizationError,
    PointingGame,
    SensitivityMax,
    Sparseness,
    WeightRandomization,
)
from tests.lightning_modules.metrics.small import small_pass

METRICS: list[AttributionMetric] = [
    *(PointingGame(0), EnergyInBox(), LocalizationError(), ClassDiscrimination(), AverageDrop(), Sparseness()),
    *(InsertionDeletion(100), InsertionDeletion(100, sign="signed"), ROAD([50]), Infidelity(3), SensitivityMax(2)),
    WeightRandomization(n_seeds=2),
]


def batch() -> Any:
    """Of two images, each with a box of its class and one of another, and its label is right."""
    boxes = torch.tensor([[2.0, 2, 8, 8], [9, 9, 15, 15]]).repeat(2, 1)
    labels = torch.tensor([2, 1, 0, 1])
    return {"boxes": boxes, "box_labels": labels, "n_boxes": torch.tensor([2, 2]), "label": torch.tensor([2, 0])}


def nothing(fill: Callable[[Tensor], Any], channels: int) -> Tensor:
    """Two maps, of which the second shows nothing."""
    maps = torch.rand(2, channels, 16, 16, dtype=torch.float64)
    fill(maps[1])
    return maps


FILLS: dict[str, Callable[[Tensor], Any]] = {
    "zeros": lambda of: of.zero_(),
    "the same": lambda of: of.fill_(0.3),
    "the same and negative": lambda of: of.fill_(-2),
    "NaN": lambda of: of.fill_(torch.nan),
    "one NaN": lambda of: of[0, 3].fill_(torch.nan),
    "one infinite": lambda of: of[0, 3, 3].fill_(torch.inf),
    "the same but for rounding": lambda of: of.fill_(0.3)[0, 3].mul_(1 + 3e-16),
}


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fill", FILLS.values(), ids=FILLS)
@pytest.mark.parametrize("metric", METRICS, ids=repr)
def test_no_score_in_any_column(metric: AttributionMetric, fill: Callable[[Tensor], Any], channels: int) -> None:
    method = GradCAM() if channels == 1 else Saliency()
    scores = metric.score(nothing(fill, channels), small_pass(), batch(), method)
    assert set(scores) == {*metric.columns, *metric.curves}
    for name, score in scores.items():
        assert score[1].isnan().all(), name
        # That of the other map is there.
        assert not score[0].isnan().any(), name


@pytest.mark.parametrize(
    "metric", [PointingGame(0), EnergyInBox(), AverageDrop(), InsertionDeletion(100, sign="positive")], ids=repr
)
def test_nor_where_the_part_that_is_read_shows_nothing(metric: AttributionMetric) -> None:
    """Of one channel, what is positive."""
    maps = nothing(lambda of: of.neg_(), 1)
    for score in metric.score(maps, small_pass(), batch(), Saliency()).values():
        assert score[1].isnan().all()
        assert not score[0].isnan().any()
    if isinstance(metric, InsertionDeletion):
        signed = InsertionDeletion(100, sign="signed").score(maps, small_pass(), batch(), Saliency())
        assert not signed["insertion"].isnan().any()


@pytest.mark.parametrize("size", [7, 32, 112, 224])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_enlarged_constant_is_a_constant(size: int, dtype: torch.dtype) -> None:
    """As of a layer with one position: 0.1 is 0.1 up to rounding wherever it is interpolated."""
    grids = torch.full((1, 1, 3, 3), 0.1, dtype=dtype)
    enlarged = F.interpolate(grids, (size, size), mode="bilinear", align_corners=False)
    assert not shows_something(enlarged.flatten(1))
    grids[..., 1, 1] *= 1 + 1e-5
    assert shows_something(F.interpolate(grids, (size, size), mode="bilinear", align_corners=False).flatten(1))
