"""From the values of a score to its mean, its interval and its count; and these as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lightning_modules.results.statistics import interval_of_mean, means_of_units
from lightning_modules.results.tables import number


def summarize_score(values: np.ndarray, classes: np.ndarray, images: np.ndarray | None = None) -> dict[str, Any]:
    """``mean``, ``low`` and ``high`` (its 95 % interval), ``class_mean`` and ``n``.

    All but ``n`` are None where there is no value, and the interval also where the values tell of none.

    Args:
        values: The score of each map or image, float64 ``(n,)``; NaN is left out.
        classes: The class of each, over which ``class_mean`` takes the mean of means; NaN is none.
        images: The image that each is of, numbered from 0. The mean and its interval are of the images' means, as maps
            of one image are no independent ones. None = each is of an image of its own.
    """
    is_scored = ~np.isnan(values)
    class_mean = float(pd.Series(values[is_scored]).groupby(classes[is_scored]).mean().mean())
    return {
        **mean_and_interval(values, images),
        "class_mean": None if math.isnan(class_mean) else class_mean,
        "n": int(is_scored.sum()),
    }


def mean_and_interval(values: np.ndarray, images: np.ndarray | None = None) -> dict[str, float | None]:
    """``mean``, ``low`` and ``high`` of the images' means, as :func:`summarize_score` has them.

    Example:
        >>> mean_and_interval(np.array([1.0, 0.0, 0.5]), np.array([0, 0, 1]))["mean"]
        0.5
    """
    if images is not None and len(images):
        values = means_of_units(values, images, int(images.max()) + 1)
    known = values[~np.isnan(values)]
    found = (float(known.mean()) if len(known) else math.nan, *interval_of_mean(known))
    return {name: None if math.isnan(of) else of for name, of in zip(("mean", "low", "high"), found)}


def mean_or_none(values: np.ndarray) -> float | None:
    """The mean of float64 ``(n,)`` but for the NaN among them; None where all is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def mean_with_interval(score: Mapping[str, Any]) -> str:
    """Mean ± half the interval, as wide as its longer side; the mean alone where there is no interval.

    Example:
        >>> mean_with_interval({"mean": 0.5, "low": 0.375, "high": 0.75})
        '0.500 ± 0.250'
    """
    if score["mean"] is None or score["low"] is None:
        return number(score["mean"], ".3f")
    return f"{number(score['mean'], '.3f')} ± {max(score['high'] - score['mean'], score['mean'] - score['low']):.3f}"


def share_with_interval(score: Mapping[str, Any]) -> str:
    """A share in percent, and its interval.

    Example:
        >>> share_with_interval({"mean": 0.5, "low": 0.375, "high": 0.625})
        '50.0% [37.5, 62.5]'
    """
    if score["mean"] is None or score["low"] is None:
        return "-" if score["mean"] is None else f"{score['mean']:.1%}"
    return f"{score['mean']:.1%} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
