"""The places of methods by several scores -> a matplotlib figure. Knows no model and no logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_modules.figures.style import plain_text, wrap, wrap_name


@plain_text
def ranking_figure(ranking: Mapping[str, Mapping[str, Any]], methods: Sequence[str]) -> Figure:
    """A row for each method and a column for each score: the places that it may have, the darker the better.

    Args:
        ranking: Score -> {"better", "n", "methods": {name: {"mean", "best_place", "worst_place"}}}, as in the summary.
        methods: In the order of the rows.
    """
    width = max(5.2, 2.6 + 1.15 * len(ranking))
    figure = Figure(figsize=(width, 1.9 + 0.4 * len(methods)), dpi=110, layout="constrained")
    axes = figure.subplots()
    last = len(methods) - 1
    places = np.array([[np.mean(_places(ranked, method)) - 1 for ranked in ranking.values()] for method in methods])
    axes.imshow(1 - places / last, cmap="Blues", vmin=-0.1, vmax=1.6, aspect="auto")
    for y, method in enumerate(methods):
        for x, ranked in enumerate(ranking.values()):
            best, worst = _places(ranked, method)
            text = f"{best}" if best == worst else f"{best}–{worst}"
            mean = f"{ranked['methods'][method]['mean']:.3g}"
            # Who can be anywhere is not said to be first.
            weight = "bold" if best == 1 and worst <= last else "normal"
            axes.text(x, y - 0.14, text, ha="center", va="center", fontsize=10, weight=weight)
            axes.text(x, y + 0.27, mean, ha="center", va="center", fontsize=7, color="0.3")
    titles = [
        "\n".join([*wrap(name.replace("_", " "), 14), f"({ranked['better']} is better)"])
        for name, ranked in ranking.items()
    ]
    axes.set_xticks(range(len(ranking)), titles, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(methods)), [wrap_name(name) for name in methods], fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    counts = sorted({ranked["n"] for ranked in ranking.values()})
    n = "-".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    # An inch holds so many letters of each size.
    title = wrap(f"Places of the methods, and their means, over {n} images", int(9 * width))
    figure.suptitle("\n".join(title), fontsize=11)
    how_to_read = "2–4: from second to fourth; with 95 % over all pairs of methods and all scores, no more is known"
    figure.supxlabel("\n".join(wrap(how_to_read, int(13 * width))), fontsize=8)
    return figure


def _places(ranked: Mapping[str, Any], method: str) -> tuple[int, int]:
    of_method = ranked["methods"][method]
    return of_method["best_place"], of_method["worst_place"]
