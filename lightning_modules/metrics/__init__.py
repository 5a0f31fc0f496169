"""Scores of attribution maps: pure functions, and torchmetrics classes over them."""

from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.metrics.localization import (
    EnergyInBox,
    PointingGame,
    boxes_to_mask,
    energy_in_box,
    pointing_game,
)
from lightning_modules.metrics.similarity import rank_correlation, top_overlap

__all__ = [
    "AttributionMetric",
    "EnergyInBox",
    "PointingGame",
    "boxes_to_mask",
    "energy_in_box",
    "pointing_game",
    "rank_correlation",
    "top_overlap",
]
