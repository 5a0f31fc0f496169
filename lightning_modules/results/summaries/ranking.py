"""Which of several methods is better by a score, over the same images, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from lightning_modules.results.statistics import LEVEL, p_of_pairs, places_of


def summarize_ranking(scores: Mapping[str, np.ndarray], better: str, n_scores: int = 1) -> dict[str, Any] | None:
    """The place of each method by a score, and the difference of each two, over the images that all have it.

    Args:
        scores: Method -> its score of each image, the k-th of the k-th image, float64 ``(N,)``; NaN = not scored.
        better: ``higher`` or ``lower``.
        n_scores: By how many scores the methods are ranked.

    Returns:
        ``better``, ``n`` (images), ``methods`` (name -> ``mean`` over these images, and ``best_place`` and
        ``worst_place`` of :func:`~lightning_modules.results.statistics.rank_methods`, the best first) and ``pairs``
        (``first``, ``second``, their ``difference``, second - first, and ``p``, corrected for all pairs and scores).
        None of fewer than two methods, or without an image.
    """
    names = list(scores)
    values = np.column_stack(list(scores.values())) if names else np.empty((0, 0))
    values = values[np.isfinite(values).all(1)]
    if len(names) < 2 or not len(values):
        return None
    means, p = values.mean(0), p_of_pairs(values, n_scores)
    places = places_of(-means if better == "lower" else means, p)
    return {
        "better": better,
        "n": len(values),
        "methods": {
            names[k]: {"mean": float(means[k]), "best_place": places[k].best, "worst_place": places[k].worst}
            for k in np.argsort(means if better == "lower" else -means, kind="stable")
        },
        "pairs": [
            {"first": names[i], "second": names[j], "difference": float(means[j] - means[i]), "p": float(p[i, j])}
            for i, j in combinations(range(len(names)), 2)
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


def notes_of_ranking(ranking: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By which scores no places can be told apart, whatever the methods are, as there are too few images.

    Example:
        >>> notes_of_ranking({"deletion": {"n": 5}})[0][:68]
        'Too few images to rank methods by deletion (5 images): any place is '
    """
    # So many ways there are to turn the signs of whole images, but for turning all.
    fewest = next(n for n in range(64) if len(ranking) <= (1 - LEVEL) * 2 ** (n - 1))
    few = [f"{name} ({of['n']:,} images)" for name, of in ranking.items() if of["n"] < fewest]
    if not few:
        return []
    needed = f"{len(ranking)} scores need {fewest}" if len(ranking) > 1 else f"One score needs {fewest}"
    return [f"Too few images to rank methods by {', '.join(few)}: any place is possible. {needed}."]
