"""Which of several methods is better by a score, over the same images, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from lightning_modules.results.scores import MOST_RESAMPLED, N_RESAMPLES

LEVEL = 0.95


class Resamples:
    """How often each of n images is drawn in each resample: the same for all scores of as many images.

    What was drawn last is kept, at most 100 MB.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._counts = np.empty((N_RESAMPLES, 0), np.uint8)

    def counts(self, n: int) -> np.ndarray:
        """These counts, ``(N_RESAMPLES, n)``."""
        if self._counts.shape[1] != n:
            draws = np.random.default_rng(self.seed)
            self._counts = np.empty((N_RESAMPLES, n), np.uint8)  # none is drawn 256 times: one in 256! would be
            for of_resample in self._counts:
                of_resample[:] = np.bincount(draws.integers(n, size=n), minlength=n)
        return self._counts


def rank_methods(
    scores: Mapping[str, np.ndarray], better: str = "higher", resamples: Resamples | None = None
) -> dict[str, Any] | None:
    r"""The place of each method by a score, and the difference of each two, over the images that all have it.

    The intervals of all differences hold at once with 95 %: with a dozen methods, which make 66 pairs, chance makes no
    more of them stand out than with two. For a pair with the mean difference :math:`d` they are
    :math:`d \pm c s`: :math:`s` is the deviation of the difference over resamples of the images, and :math:`c` the 95 %
    quantile of the greatest :math:`|d^* - d| / s` of all pairs of a resample.

    A method's place is an interval too: from the first it can have, behind all methods that are better beyond their
    interval, to the last, before all that are worse.

    Args:
        scores: Method -> its score of each image, the k-th of the k-th image, float64 ``(N,)``; NaN = not scored.
        better: ``higher`` or ``lower``.
        resamples: Of the images, where several scores are ranked one after the other.

    Returns:
        ``better``, ``n`` (images), ``interval`` (``bootstrap``, or ``normal`` beyond
        :data:`~lightning_modules.results.scores.MOST_RESAMPLED` images), ``methods`` (name -> ``mean`` over these
        images, ``best_place`` and ``worst_place``, the best first) and ``pairs`` (``first``, ``second``, and
        ``difference``, ``low`` and ``high`` of second - first). None of fewer than two methods or images.

    References: Westfall & Young, "Resampling-Based Multiple Testing", 1993 (the quantile); Mogstad et al., "Inference
    for Ranks", Review of Economic Studies 2024 (the places).

    Example:
        >>> noise = np.linspace(-0.1, 0.1, 50)
        >>> ranked = rank_methods({"A": 0.5 + noise, "B": 0.7 - noise, "C": 0.71 + 3 * noise})
        >>> {name: (of["best_place"], of["worst_place"]) for name, of in ranked["methods"].items()}
        {'C': (1, 2), 'B': (1, 2), 'A': (3, 3)}
    """
    names = list(scores)
    values = np.column_stack(list(scores.values())) if names else np.empty((0, 0))
    values = values[~np.isnan(values).any(1)]
    if len(names) < 2 or len(values) < 2:
        return None
    means = values.mean(0)
    resampled = _resampled_means(values, resamples or Resamples())
    pairs = list(combinations(range(len(names)), 2))
    first, second = (np.array(side) for side in zip(*pairs))
    differences = means[second] - means[first]
    off = (resampled[:, second] - resampled[:, first]) - differences
    # What is the same for all images differs by roundings, which are no spread; scores are computed in float32.
    rounding = 1e-6 * np.abs(values).max()
    spread = np.where(np.ptp(off, 0) > rounding, off.std(0), 0.0)
    width = spread * np.quantile(np.abs(off / np.where(spread, spread, np.inf)).max(1), LEVEL)
    low, high = differences - width, differences + width
    has_more = np.zeros((len(names), len(names)), bool)
    has_more[second, first], has_more[first, second] = low > rounding, high < -rounding
    beats = has_more.T if better == "lower" else has_more
    order = np.argsort(means if better == "lower" else -means, kind="stable")
    return {
        "better": better,
        "n": len(values),
        "interval": "bootstrap" if len(values) <= MOST_RESAMPLED else "normal",
        "methods": {
            names[k]: {
                "mean": float(means[k]),
                "best_place": 1 + int(beats[:, k].sum()),
                "worst_place": len(names) - int(beats[k].sum()),
            }
            for k in order
        },
        "pairs": [
            {"first": names[i], "second": names[j], "difference": float(of), "low": float(least), "high": float(most)}
            for (i, j), of, least, most in zip(pairs, differences, low, high)
        ],
    }


def place(of_method: Mapping[str, Any]) -> str:
    """A method's place, as a number or from the best to the worst.

    Example:
        >>> place({"best_place": 1, "worst_place": 1}), place({"best_place": 2, "worst_place": 4})
        ('1', '2-4')
    """
    best, worst = of_method["best_place"], of_method["worst_place"]
    return str(best) if best == worst else f"{best}-{worst}"


def _resampled_means(values: np.ndarray, resamples: Resamples) -> np.ndarray:
    """The means of resamples of the images, of all methods at once: ``(N, M) -> (R, M)``."""
    n = len(values)
    means = values.mean(0)
    if n > MOST_RESAMPLED:
        # What the resamples come near to.
        draws = np.random.default_rng(resamples.seed)
        return draws.multivariate_normal(means, np.cov(values.T, bias=True) / n, 10 * N_RESAMPLES, method="eigh")
    off, some = values - means, max(1, 5_000_000 // n)
    counts = resamples.counts(n)
    # Some at a time, since as float64 they take eight times the memory.
    resampled = [counts[k : k + some].astype(np.float64) @ off / n for k in range(0, N_RESAMPLES, some)]
    return means + np.concatenate(resampled)
