"""Which of several methods is better by a score, over the same images, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
        ``better``, ``n`` (images), ``n_dropped`` (images of which some methods lack the score, as their maps show
        nothing), ``methods`` (name -> ``mean`` over these images, and ``best_place`` and
        ``worst_place`` of :func:`~lightning_modules.results.statistics.rank_methods`, the best first) and ``pairs``
        (``first``, ``second``, their ``difference``, second - first, and ``p``, corrected for all pairs and scores).
        None of fewer than two methods, or without an image.
    """
    names = list(scores)
    values = np.column_stack(list(scores.values())) if names else np.empty((0, 0))
    scored = np.isfinite(values)
    n_dropped = int((scored.any(1) & ~scored.all(1)).sum()) if names else 0
    values = values[scored.all(1)]
    if len(names) < 2 or not len(values):
        return None
    means, p = values.mean(0), p_of_pairs(values, n_scores)
    places = places_of(-means if better == "lower" else means, p)
    return {
        "better": better,
        "n": len(values),
        "n_dropped": n_dropped,
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


def unbeaten(ranking: Mapping[str, Mapping[str, Any]], uninformed: Collection[str]) -> dict[str, dict[str, list[str]]]:
    """By each score, the maps that explain nothing, and the methods that are not known to be better than them.

    A method beats such a map where its mean is the better one and ``p`` of the pair is at most 5 %.

    Args:
        ranking: Score -> see :func:`summarize_ranking`.
        uninformed: Names of the methods that explain nothing; see :mod:`lightning_modules.methods.uninformed`.

    Returns:
        Score -> one of these -> names of methods; without those that all methods beat.

    Example:
        >>> pairs = [{"first": "Random", "second": "A", "difference": 0.1, "p": 0.01}]
        >>> pairs += [{"first": "B", "second": "Random", "difference": -0.1, "p": 0.2}]
        >>> unbeaten({"insertion": {"better": "higher", "pairs": pairs}}, ["Random"])
        {'insertion': {'Random': ['B']}}
    """
    found: dict[str, dict[str, list[str]]] = {}
    for score, ranked in ranking.items():
        for pair in ranked["pairs"]:
            one, other, more = pair["first"], pair["second"], pair["difference"]
            if (one in uninformed) == (other in uninformed):
                continue
            if other in uninformed:
                one, other, more = other, one, -more
            is_better = more < 0 if ranked["better"] == "lower" else more > 0
            if not is_better or pair["p"] > 1 - LEVEL:
                found.setdefault(score, {}).setdefault(one, []).append(other)
    return found


def notes_of_unbeaten(not_beaten: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """A sentence on each score that maps which explain nothing reach.

    Example:
        >>> notes_of_unbeaten({"deletion": {"Random": ["A", "B"], "EdgeFilter": ["A"]}})
        ['deletion: A, B are not known to beat Random; A not EdgeFilter, which explain nothing.']
    """
    notes = []
    for score, by_map in not_beaten.items():
        (first, methods), *rest = by_map.items()
        known = "is not known" if len(methods) == 1 else "are not known"
        parts = [f"{', '.join(methods)} {known} to beat {first}"]
        parts += [f"{', '.join(others)} not {name}" for name, others in rest]
        notes.append(f"{score}: {'; '.join(parts)}, which explain{'' if rest else 's'} nothing.")
    return notes
