"""Statistics of pairs: of the same images under two networks, two methods, or before and after a change.

Pure functions over arrays of one length, of which the k-th values are of the k-th image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lightning_modules.results.statistics import interval_of_difference, pairs_of_values


class PairedDifference(NamedTuple):
    """How much higher a score is in the second of two, over the images of which both have it.

    Attributes:
        n: Number of pairs.
        n_unpaired: Images of which only one of the two has the score; they are left out.
        first: Mean of the first over the pairs; None where there are none, as all below.
        second: Mean of the second over the same pairs.
        difference: The mean of second - first.
        low: Lower end of its 95 % interval; None also of a single pair, which tells nothing of a spread.
        high: Upper end.
    """

    n: int
    n_unpaired: int
    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None


def paired_difference(first: np.ndarray, second: np.ndarray) -> PairedDifference:
    """The mean difference of two scores of the same images, with its 95 % interval.

    The interval is that of :func:`~lightning_modules.results.statistics.interval_of_difference`. It knows nothing of
    other intervals beside it; of all pairs of methods, see
    :func:`~lightning_modules.results.statistics.rank_methods`.

    Args:
        first: ``(N,)``; NaN = not scored.
        second: ``(N,)``, likewise.

    Raises:
        InputError: If the lengths differ.

    Example:
        >>> found = paired_difference(np.array([0.0, 0.5, np.nan]), np.array([0.5, 1.0, 0.0]))
        >>> found.n, found.n_unpaired, found.first, found.second, found.difference
        (2, 1, 0.25, 0.75, 0.5)
    """
    first, second, n_unpaired = _pairs(first, second)
    n = len(first)
    if not n:
        return PairedDifference(0, n_unpaired, None, None, None, None, None)
    low, high = (None if np.isnan(end) else end for end in interval_of_difference(first, second))
    means = float(first.mean()), float(second.mean()), float((second - first).mean())
    return PairedDifference(n, n_unpaired, *means, low, high)


class McNemar(NamedTuple):
    """How often two answers to the same yes-or-no question differ.

    Attributes:
        n: Number of pairs.
        only_first: Pairs of which only the first is a yes.
        only_second: Pairs of which only the second is.
        p: How probable it is that one side wins at least so clearly, if either were as likely to win: in (0, 1].
    """

    n: int
    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact test, two-sided: a sign test of the pairs that differ. Where none does, p is 1.

    Args:
        first: 1 = yes, 0 = no, NaN = not known, ``(N,)``.
        second: Likewise.

    Raises:
        InputError: If the lengths differ.

    Reference: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 1947.

    Example:
        >>> mcnemar(np.array([1, 0, 0, 0, 0]), np.array([1, 1, 1, 1, 1]))
        McNemar(n=5, only_first=0, only_second=4, p=0.125)
    """
    first, second, _ = _pairs(first, second)
    only_first, only_second = int((first > second).sum()), int((second > first).sum())
    n_different = only_first + only_second
    p = float(stats.binomtest(only_first, n_different).pvalue) if n_different else 1.0
    return McNemar(len(first), only_first, only_second, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several: all of them hold together at the level that each is held against.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors)) if len(values) else values
    return [float(p) for p in corrected]


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The values of the images that have both, float64; and of how many images there is only one."""
    both = pairs_of_values(first, second)
    return *both, int((np.isnan(first) != np.isnan(second)).sum())
