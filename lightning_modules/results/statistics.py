"""The statistics of the project, as functions of arrays: one way to an interval, and one to the places of methods.

Values are those of independent images. Of an image that was measured several times, such as for each of its objects,
take the mean first, see :func:`means_of_units`: its rows are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lightning_modules.errors import InputError

LEVEL = 0.95
FEWEST_RANKED = 6
"""Of fewer images no ranking can hold with 95 %: of five there are 16 ways to turn signs, and 1/16 is more than 5 %."""

_Z = float(stats.norm.ppf((1 + LEVEL) / 2))
_MOST_UNITS = 2000
_N_FLIPS = 4000
_MOST_EXACT = 14
"""Of up to so many images all ways to turn their signs are gone through."""


class Interval(NamedTuple):
    """The ends of a 95 % interval; both NaN where the values tell of none."""

    low: float
    high: float


class Place(NamedTuple):
    """The places, 1 = the best, that a method may have."""

    best: int
    worst: int


NO_INTERVAL = Interval(math.nan, math.nan)


def interval_of_mean(values: ArrayLike) -> Interval:
    r"""The 95 % interval of the mean that the values' population has, by the kind of the values.

    - Of zeros and ones: Wilson's, of a share.
    - Of numbers: Student's, :math:`m \pm t s / \sqrt n`, which on the side of the longer tail reaches farther by
      :math:`(2 t^2 + 1)\, |g|\, s / (6 n)`, Hall's correction for the skewness :math:`g`.
    - Of numbers in [-1, 1] of which half or more are the same one, their least or greatest, such as maps that lie
      wholly on the object: values that were never seen may lie elsewhere, so :math:`z^2 / 2` more of that one are added
      and as many that lie elsewhere, as Agresti and Coull do for shares. Elsewhere is where the others end, the nearer
      to the end of the score's range, [0, 1] or [-1, 1], the fewer others there are.

    It covers the mean in 93 to 97 % of samples of 5 and more, be they normal, moderately skewed (skewness up to 1.5) or
    shares, on average over these. Few values do not show how long a tail is: of exponential ones it covers the mean in
    92 % of samples of 5, 93 % of 10 and 95 % of 20; of such of which half are 0, in 81 % of 5 and 92 % of 20. It is
    never of no width.

    Args:
        values: ``(n,)``; NaN = not measured, left out. Numbers or truth values.

    Returns:
        Its ends; NaN of fewer than two values, and of equal ones outside [-1, 1], whose range is not known.

    References: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927; Agresti & Coull,
    "Approximate is Better than 'Exact' for Interval Estimation of Binomial Proportions", 1998; Hall, "On the Removal of
    Skewness by Transformation", 1992.

    Example:
        >>> low, high = interval_of_mean([1] * 19 + [0])
        >>> f"{low:.3f} {high:.3f}"
        '0.764 0.991'
        >>> low, high = interval_of_mean([0.1, 0.2, 0.3, 0.4])
        >>> f"{low:.3f} {high:.3f}"
        '0.045 0.455'
    """
    return _interval(_known(values))


def interval_of_difference(first: ArrayLike, second: ArrayLike) -> Interval:
    """The 95 % interval of the mean of ``second - first``, of two scores of the same images.

    Of zeros and ones it is Bonett and Price's, for pairs of shares; else that of :func:`interval_of_mean` of the
    differences.

    Args:
        first: ``(n,)``, of the k-th image the k-th; NaN = not measured, and no pair.
        second: Likewise.

    Raises:
        InputError: If the lengths differ.

    Reference: Bonett & Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on
    Paired Data", Journal of Educational and Behavioral Statistics 2012.

    Example:
        >>> low, high = interval_of_difference([0, 0, 0, 1, 1, 0], [1, 1, 0, 1, 1, 0])
        >>> f"{low:.3f} {high:.3f}"
        '-0.208 0.708'
    """
    before, after = pairs_of_values(first, second)
    differences = after - before
    if len(differences) > 1 and _is_binary(np.concatenate([before, after])):
        n = len(differences) + 2
        lost, won = ((differences == sign).sum() + 1 for sign in (-1, 1))
        middle = (won - lost) / n
        half = _Z * math.sqrt(((won + lost) / n - middle**2) / n)
        return Interval(max(-1.0, float(middle - half)), min(1.0, float(middle + half)))
    return _interval(differences, is_signed=True)


def pairs_of_values(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The values of those images that have both, float64.

    Raises:
        InputError: If the lengths differ.
    """
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if one.shape != other.shape or one.ndim != 1:
        raise InputError(f"Pairs are of two lists of one length, got {one.shape} and {other.shape}.")
    has_both = ~np.isnan(one) & ~np.isnan(other)
    return one[has_both], other[has_both]


def means_of_units(values: np.ndarray, units: np.ndarray, n_units: int) -> np.ndarray:
    """The mean of each unit's values, float64 ``(n_units,)``; NaN where it has none.

    Args:
        values: ``(n,)``; NaN is left out.
        units: The unit of each, such as the image that it was measured of: from 0 to ``n_units - 1``.
        n_units: How many there are.

    Example:
        >>> means_of_units(np.array([1.0, 0.0, 0.5, np.nan]), np.array([0, 0, 2, 2]), 3)
        array([0.5, nan, 0.5])
    """
    is_known = ~np.isnan(values)
    counts = np.bincount(units[is_known], minlength=n_units)
    sums = np.bincount(units[is_known], values[is_known], minlength=n_units)
    return np.divide(sums, counts, out=np.full(n_units, np.nan), where=counts > 0)


def rank_methods(scores: ArrayLike, better: str = "higher", n_scores: int = 1, seed: int = 0) -> list[Place]:
    """Of each method the best and the worst place that it may have by a score, all of them at once with 95 %.

    A method stands behind all that are better than it by :func:`p_of_pairs`, and before all that are worse; between
    others there is no order. Of fewer than :data:`FEWEST_RANKED` images any place is possible.

    Args:
        scores: ``(n_images, n_methods)``. An image that lacks one, NaN, is left out.
        better: ``higher`` or ``lower``.
        n_scores: By how many scores the same methods are ranked; places then hold at once for all of them.
        seed: Of the signs that are turned.

    Raises:
        InputError: If the scores are no table, or ``better`` is another word.

    Reference: Mogstad et al., "Inference for Ranks with Applications to Mobility across Neighbourhoods and Academic
    Achievement across Countries", Review of Economic Studies 2024.

    Example:
        >>> noise = np.linspace(-0.1, 0.1, 50)
        >>> rank_methods(np.column_stack([0.5 + noise, 0.7 - noise, 0.71 + 3 * noise]))
        [Place(best=3, worst=3), Place(best=1, worst=2), Place(best=1, worst=2)]
    """
    if better not in ("higher", "lower"):
        raise InputError(f"better must be higher or lower, got {better!r}.")
    values = _table(scores)
    means = values.mean(0) if len(values) else np.zeros(values.shape[1])
    return places_of(means if better == "higher" else -means, p_of_pairs(values, n_scores, seed))


def places_of(goodness: np.ndarray, p: np.ndarray) -> list[Place]:
    """The places that follow from :func:`p_of_pairs`, of methods of which more ``goodness``, ``(M,)``, is better."""
    beats = (p <= 1 - LEVEL) & (goodness[:, None] > goodness)
    return [Place(1 + int(beats[:, k].sum()), len(beats) - int(beats[k].sum())) for k in range(len(beats))]


def p_of_pairs(scores: ArrayLike, n_scores: int = 1, seed: int = 0) -> np.ndarray:
    r"""How probable so clear a difference of two methods is where none differs, among all pairs: ``(M, M)``.

    Clear is :math:`|\sum_i d_i| / \sqrt{\sum_i d_i^2}` of the differences :math:`d_i` of two methods, which grows with
    their t; less so by Hall's correction, at the quantile that 5 % over all pairs is, where the longer tail of the
    differences lies on the other side. Where methods do not differ, a whole image's differences might as well have the
    other sign; so the signs of whole images are turned at random, and p is the share of turns, with that of none, under
    which any pair is as clear.

    The promise holds where differences are symmetric, moderately skewed or of many images: of twelve equal methods of
    which half have exponential scores and half mirrored ones, some are told apart in 9 to 13 % of runs of 8 to 40
    images.

    All turns are gone through of up to 14 images, else 4,000 are drawn. Of more than 2,000 images as many sums of
    images are turned, each of images that lie apart.

    Args:
        scores: ``(n_images, n_methods)``. An image that lacks one, NaN, is left out.
        n_scores: Of how many scores this is one: p is then multiplied by it (Bonferroni).
        seed: Of the signs.

    References: Westfall & Young, "Resampling-Based Multiple Testing", 1993 (the greatest of all pairs); Winkler et al.,
    "Permutation Inference for the General Linear Model", NeuroImage 2014 (signs).
    """
    values = _table(scores)
    n, n_methods = values.shape
    p = np.ones((n_methods, n_methods))
    if n < FEWEST_RANKED or n_methods < 2:
        return p
    # What is the same for all images differs by roundings, which are no spread; scores are computed in float32.
    rounding = 1e-6 * np.abs(values).max()
    values = values - values.mean(1, keepdims=True)
    if n > _MOST_UNITS:
        padded = np.pad(values, ((0, -n % _MOST_UNITS), (0, 0)))
        values, rounding = padded.reshape(-1, _MOST_UNITS, n_methods).sum(0), rounding * math.ceil(n / _MOST_UNITS)
    first, second = np.triu_indices(n_methods, 1)
    differences = values[:, first] - values[:, second]
    lengths = np.where(np.abs(differences).max(0) > rounding, np.sqrt((differences**2).sum(0)), math.inf)
    sums = differences.sum(0)
    off = differences - differences.mean(0)
    squares = (off**2).sum(0)
    z = stats.norm.isf((1 - LEVEL) / 2 / len(first))
    longer = (2 * z**2 + 1) / 6 * np.divide((off**3).sum(0), squares, out=np.zeros_like(sums), where=squares > 0)
    clearness = np.maximum(np.abs(sums) + np.minimum(longer * np.sign(sums), 0), 0) / lengths
    turned = np.concatenate([signs @ values for signs in _signs(len(values), seed)])
    greatest = np.sort((np.abs(turned[:, first] - turned[:, second]) / lengths).max(1))
    n_as_clear = len(greatest) - np.searchsorted(greatest, clearness * (1 - 1e-9))  # sums of other orders are as clear
    p[first, second] = p[second, first] = np.minimum(1, n_scores * n_as_clear / len(greatest))
    return p


def _signs(n: int, seed: int) -> Iterator[np.ndarray]:
    """Turned signs of n images, ``(some, n)`` at a time; the first are those of which nothing was turned."""
    if n <= _MOST_EXACT:
        # The last image stays: to turn all of them changes nothing.
        yield 1.0 - 2 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1)
        return
    yield np.ones((1, n))
    draws = np.random.default_rng(seed)
    for _ in range(0, _N_FLIPS, 500):
        yield 1.0 - 2 * draws.integers(0, 2, (500, n))


def _interval(values: np.ndarray, is_signed: bool | None = None) -> Interval:
    """That of :func:`interval_of_mean`, of values without NaN.

    Args:
        values: ``(n,)``.
        is_signed: Whether there may be negative ones; None = if there are.
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return NO_INTERVAL
    if _is_binary(values) and not is_signed:
        of_share = stats.binomtest(int(values.sum()), n).proportion_ci(LEVEL, method="wilson")
        return Interval(float(of_share.low), float(of_share.high))
    is_bounded = np.abs(values).max() <= 1
    distinct, counts = np.unique(values, return_counts=True)
    common, is_end = distinct[counts.argmax()], counts.argmax() in (0, len(distinct) - 1)
    if len(distinct) == 1 and not is_bounded:
        return NO_INTERVAL
    if is_bounded and is_end and 2 * counts.max() >= n:
        least = -1.0 if is_signed or values.min() < 0 else 0.0
        return _interval_of_mostly_one(values, common, distinct[[0, -1]], least)
    mean, deviation, t = values.mean(), values.std(ddof=1), float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    off = values - mean
    # The skewness as a sample without bias has it; two values have none.
    longer = (2 * t**2 + 1) * (off**3).mean() / (off**2).mean() / (6 * max(n - 2, 1))
    half = t * deviation / math.sqrt(n)
    return Interval(float(mean - half + min(longer, 0)), float(mean + half + max(longer, 0)))


def _interval_of_mostly_one(values: np.ndarray, common: float, ends: np.ndarray, least: float) -> Interval:
    """That of :func:`interval_of_mean`, of numbers from ``least`` to 1 of which half or more are ``common``."""
    n, n_others = len(values), int((values != common).sum())
    elsewhere = (np.array([least, 1.0]) + n_others * ends) / (n_others + 1)
    elsewhere = elsewhere[elsewhere != common]
    all_values = np.concatenate([values, [common], elsewhere])
    weights = np.concatenate([np.ones(n), [_Z**2 / 2], np.full(len(elsewhere), _Z**2 / 2 / len(elsewhere))])
    middle = np.average(all_values, weights=weights)
    half = _Z * math.sqrt(np.average((all_values - middle) ** 2, weights=weights) / weights.sum())
    return Interval(max(float(middle - half), least), min(float(middle + half), 1.0))


def _known(values: ArrayLike) -> np.ndarray:
    """The values but for the NaN among them, float64 ``(n,)``."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    return flat[~np.isnan(flat)]


def _is_binary(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _table(scores: ArrayLike) -> np.ndarray:
    """The images that have all scores, float64 ``(n, M)``."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"Scores to rank are a table of (n_images, n_methods), got {values.shape}.")
    return values[np.isfinite(values).all(1)]
