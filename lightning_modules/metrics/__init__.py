"""Scores of attribution maps: pure functions, and small classes over them.

Scores never draw or write; they read the forward pass that the maps explain.
"""

from lightning_modules.metrics.base import AttributionMetric, CurveAxes, without_degenerate
from lightning_modules.metrics.causal import (
    AverageDrop,
    InsertionDeletion,
    area_under_curve,
    probability_curve,
    rise_blur,
    shares_of_pixels,
)
from lightning_modules.metrics.forgetting import cascade, weighted_layers
from lightning_modules.metrics.imputation import imputed
from lightning_modules.metrics.infidelity import Infidelity
from lightning_modules.metrics.localization import (
    ClassDiscrimination,
    EnergyInBox,
    LocalizationError,
    PointingGame,
    boxes_to_mask,
    class_discrimination,
    energy_in_box,
    localization_box,
    pointing_game,
)
from lightning_modules.metrics.order import pixel_order
from lightning_modules.metrics.randomization import WeightRandomization
from lightning_modules.metrics.road import ROAD
from lightning_modules.metrics.sensitivity import SensitivityMax
from lightning_modules.metrics.similarity import Ranking, rank_correlation, structural_similarity, top_overlap
from lightning_modules.metrics.sparseness import Sparseness, gini_index

__all__ = [
    "ROAD",
    "AttributionMetric",
    "AverageDrop",
    "ClassDiscrimination",
    "CurveAxes",
    "EnergyInBox",
    "Infidelity",
    "InsertionDeletion",
    "LocalizationError",
    "PointingGame",
    "Ranking",
    "SensitivityMax",
    "Sparseness",
    "WeightRandomization",
    "area_under_curve",
    "boxes_to_mask",
    "cascade",
    "class_discrimination",
    "energy_in_box",
    "gini_index",
    "imputed",
    "localization_box",
    "pixel_order",
    "pointing_game",
    "probability_curve",
    "rank_correlation",
    "rise_blur",
    "shares_of_pixels",
    "structural_similarity",
    "top_overlap",
    "weighted_layers",
    "without_degenerate",
]
