"""From the values of a score to its mean, its interval and its count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lightning_modules.results.tables import number

N_RESAMPLES = 1000

MOST_RESAMPLED = 100_000
"""Of how many values at the most the interval is the bootstrap's. Beyond, where resampling takes minutes, the formula
that it comes near to is more exact than 1,000 resamples."""


def summarize_score(values: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """``mean``, ``low`` and ``high`` (its 95 % interval), ``interval``, ``class_mean`` and ``n``.

    ``interval`` says which it is: ``bootstrap`` of up to :data:`MOST_RESAMPLED` values, ``normal`` of more. All are
    None but ``n`` where there is no value.

    Args:
        values: The score of each map or image, float64 ``(n,)``; NaN is left out.
        classes: The class of each, over which ``class_mean`` takes the mean of means; NaN is none.
    """
    is_scored = ~np.isnan(values)
    scored = values[is_scored]
    if not len(scored):
        return {"mean": None, "low": None, "high": None, "interval": None, "class_mean": None, "n": 0}
    low, high, interval = interval_of_mean(scored)
    return {
        "mean": float(scored.mean()),
        "low": low,
        "high": high,
        "interval": interval,
        "class_mean": float(pd.Series(scored).groupby(classes[is_scored]).mean().mean()),
        "n": len(scored),
    }


def interval_of_mean(values: np.ndarray) -> tuple[float, float, str]:
    """The 95 % interval of the mean, and which: ``bootstrap`` of up to :data:`MOST_RESAMPLED` values, else ``normal``.

    Args:
        values: float64 ``(n,)``, at least one.
    """
    if len(values) <= MOST_RESAMPLED:
        return *bootstrap_interval(values), "bootstrap"
    return *normal_interval(values), "normal"


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


def normal_interval(values: np.ndarray) -> tuple[float, float]:
    r"""What the percentile bootstrap's 95 % interval comes near to with more and more resamples, for many values.

    With the mean :math:`m`, the deviation :math:`s` and the skewness :math:`g` of the :math:`n` values, its ends are

    .. math:: m + \frac{s}{\sqrt n} \left(z + \frac{g}{6 \sqrt n} (z^2 - 1)\right), \quad z = \pm 1.96.

    No end lies beyond the values. The skewness counts where few values differ from the others, such as the misses of a
    map that nearly always points rightly.

    Reference: Cornish & Fisher, "Moments and Cumulants in the Specification of Distributions", 1938; Hall, "The
    Bootstrap and Edgeworth Expansion", 1992.

    Example:
        >>> low, high = normal_interval(np.arange(101.0))
        >>> round(low, 2), round(high, 2)
        (44.31, 55.69)
    """
    mean, deviation, n = values.mean(), values.std(), len(values)
    off = values - mean
    z = stats.norm.ppf([0.025, 0.975])
    if deviation:
        z = z + (off * off * off).mean() / deviation**3 / (6 * np.sqrt(n)) * (z**2 - 1)
    low, high = np.clip(mean + z * deviation / np.sqrt(n), values.min(), values.max())
    return float(low), float(high)


def mean_or_none(values: np.ndarray) -> float | None:
    """The mean of float64 ``(n,)`` but for the NaN among them; None where all is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def mean_with_interval(score: dict[str, Any]) -> str:
    """Mean ± half the interval, as wide as its longer side."""
    if not score["n"]:
        return "-"
    return f"{number(score['mean'], '.3f')} ± {max(score['high'] - score['mean'], score['mean'] - score['low']):.3f}"
