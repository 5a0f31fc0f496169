"""From the values of a score to its mean, its interval and its count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lightning_modules.results.tables import number

N_RESAMPLES = 1000


def summarize_score(values: pd.Series, classes: pd.Series) -> dict[str, Any]:
    """``mean``, ``low`` and ``high`` (its bootstrap 95 % interval), ``class_mean`` and ``n``; missing values left out.

    Args:
        values: The score of each map or image.
        classes: The class of each, over which ``class_mean`` takes the mean of means.
    """
    scored = values.dropna()
    if scored.empty:
        return {"mean": None, "low": None, "high": None, "class_mean": None, "n": 0}
    numbers = scored.to_numpy(dtype=np.float64)
    low, high = bootstrap_interval(numbers)
    class_mean = float(scored.groupby(classes[scored.index]).mean().mean())
    return {"mean": float(numbers.mean()), "low": low, "high": high, "class_mean": class_mean, "n": len(numbers)}


def bootstrap_interval(values: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the mean; of a single value, that value.

    Reference: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    # Resamples are drawn some at a time: all at once would take n_resamples times the memory of the values.
    batch = max(1, 5_000_000 // len(values))
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=n_resamples, batch=batch, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mean_or_none(values: pd.Series) -> float | None:
    """The mean of what is not missing; None where all is."""
    values = values.dropna().astype(float)
    return float(values.mean()) if len(values) else None


def mean_with_interval(score: dict[str, Any]) -> str:
    """Mean ± half the interval, as wide as its longer side."""
    if not score["n"]:
        return "-"
    return f"{number(score['mean'], '.3f')} ± {max(score['high'] - score['mean'], score['mean'] - score['low']):.3f}"
