"""Figures of methods side by side: their scores, places and curves; and of two runs, their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_modules.figures.style import COLORS, in_legend, plain_text, shorten, with_its_end, wrap, wrap_name

MARKERS = "osD^vPX"
DPI = 110
HEAD, LABEL = 44, 26
"""Pixels for what stands above all, and above each picture."""


@plain_text
def comparison_figure(methods: Mapping[str, Mapping[str, Any]], better: Mapping[str, str]) -> Figure:
    """A panel for each score, a point and its 95 % interval for each method.

    Args:
        methods: Name -> {"scores": {name: {"mean", "low", "high", "n"}}}, as in the summary.
        better: Score -> whether ``higher`` or ``lower`` is better, where that is known.
    """
    scores = [name for name in next(iter(methods.values()))["scores"] if _scored(methods, name)]
    counts = [numbers["scores"][name]["n"] for numbers in methods.values() for name in scores]
    n = "-".join(f"{count:,}" for count in sorted({min(counts, default=0), max(counts, default=0)}))
    titles = [name.replace("_", " ") + (f"\n({better[name]} is better)" if name in better else "") for name in scores]
    figure, axes = _panels(titles, list(methods), f"Mean and 95 % interval of {n} maps of each method", 1)
    for axis, name in zip(axes, scores):
        for y, numbers in enumerate(methods.values()):
            score = numbers["scores"][name]
            _show_interval(axis, y, score["mean"], score, y)
    return figure


@plain_text
def differences_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]], runs: Sequence[str], title: str
) -> Figure:
    """A panel for each score, with a line for each group, and on it the difference and the 95 % interval of each run.

    Args:
        panels: Title of a panel -> group -> run -> ``difference``, ``low`` and ``high``; without a difference, a run is
            left out.
        runs: All runs, in the order of their colours.
        title: The first line.
    """
    groups = list(dict.fromkeys(group for by_group in panels.values() for group in by_group))
    figure, axes = _panels(list(panels), groups, title, len(runs))
    offsets = np.linspace(-0.5, 0.5, len(runs) + 2)[1:-1]
    for axis, by_group in zip(axes, panels.values()):
        axis.axvline(0, color="0.4", linestyle="--", linewidth=1)
        axis.locator_params(axis="x", nbins=5)
        for y, group in enumerate(groups):
            for k, run in enumerate(runs):
                if score := by_group.get(group, {}).get(run):
                    _show_interval(axis, y + offsets[k], score["difference"], score, k)
    if len(runs) > 1:
        marks = [Line2D([], [], linestyle="", marker=_marker(k), color=_color(k)) for k in range(len(runs))]
        names = [in_legend(shorten(run, 40)) for run in runs]
        figure.legend(marks, names, loc="outside lower center", ncols=min(4, len(runs)), fontsize=9)
    return figure


def _panels(titles: Sequence[str], lines: Sequence[str], title: str, n_points: int) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title; in each, lines with room for so many points."""
    columns = min(4, max(1, len(titles)))
    rows = -(-max(1, len(titles)) // columns)
    height = 0.95 + (0.22 + 0.13 * n_points) * len(lines)
    figure = Figure(figsize=(2.1 + 2.4 * columns, 0.9 + rows * height), dpi=DPI, layout="constrained")
    figure.suptitle("\n".join(wrap(title, int(10 * (2 + 2.4 * columns)))), fontsize=11)
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    for axis, name in zip(axes, titles):
        axis.set_title(name, fontsize=9)
        axis.set_yticks(range(len(lines)), [wrap_name(line) for line in lines], fontsize=9)
        axis.set_ylim(len(lines) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    return figure, axes


def _show_interval(axis: Axes, y: float, mean: float | None, score: Mapping[str, Any], k: int) -> None:
    """A point in the k-th colour, with the interval from ``low`` to ``high``, if there is one."""
    if mean is None:
        return
    low, high = (mean if score[end] is None else score[end] for end in ("low", "high"))
    error = np.maximum([[mean - low], [high - mean]], 0)
    axis.errorbar(mean, y, xerr=error, fmt=_marker(k), color=_color(k), capsize=3, markersize=5)


@plain_text
def histograms_figure(columns: Mapping[str, np.ndarray]) -> Figure:
    """A histogram for each score of images, with its mean.

    Args:
        columns: Name -> values of the images, missing ones left out.
    """
    rows = -(-len(columns) // 4)
    width = min(4, len(columns))
    figure = Figure(figsize=(0.6 + 3.4 * width, 0.6 + 2.6 * rows), dpi=110, layout="constrained")
    for axis, (name, values) in zip(figure.subplots(rows, width, squeeze=False).flat, columns.items()):
        if len(values):
            axis.hist(values, bins=30, color=_color(0))
            axis.axvline(float(values.mean()), color=_color(1), linestyle="--")
        axis.set_title(f"{name.replace('_', ' ')}\n{len(values):,} images (dashed: mean)", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(axis="y", alpha=0.3)
    for axis in figure.axes[len(columns) :]:
        axis.set_visible(False)
    return figure


@plain_text
def curves_figure(
    methods: Mapping[str, Sequence[float | None]],
    title: str,
    x_label: str,
    y_label: str,
    x: Sequence[str] | None = None,
    positions: Sequence[float] | None = None,
) -> Figure:
    """A curve for each method.

    Args:
        methods: Name -> values, at ``positions`` or at the names ``x``.
        title: Shown above.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        x: Names of the points, or None.
        positions: Where the points lie. None = at equal distances, over [0, 1] if they have no names.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for k, (name, curve) in enumerate(methods.items()):
        values = np.array([np.nan if v is None else v for v in curve], dtype=float)
        equal = np.linspace(0, 1, len(values)) if x is None else np.arange(len(values))
        marks = max(1, len(values) // 12)
        axes.plot(
            equal if positions is None else positions,
            values,
            color=_color(k),
            marker=_marker(k),
            markevery=marks,
            markersize=5,
            label=in_legend(wrap_name(name)),
        )
    if x is not None:
        axes.set_xticks(range(len(x)), x, rotation=60, ha="right", fontsize=8)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def _scored(methods: Mapping[str, Mapping[str, Any]], score: str) -> bool:
    return any(of_method["scores"][score]["n"] for of_method in methods.values())


def _color(k: int) -> str:
    return COLORS[k % len(COLORS)]


def _marker(k: int) -> str:
    return MARKERS[k % len(MARKERS)]


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


@plain_text
def pictures_below_each_other(pictures: Mapping[str, np.ndarray], title: str, subtitle: str) -> Figure:
    """Pictures of the same image, such as the figures of two runs, pixel by pixel, each below its name.

    Args:
        pictures: Name -> uint8 ``(H, W, 3)``.
        title: The first line; of a long one, such as a path, the end stays.
        subtitle: The second line.
    """
    width = max(360, *(pixels.shape[1] for pixels in pictures.values()))
    height = HEAD + sum(LABEL + pixels.shape[0] for pixels in pictures.values())
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    room = int(width / 9)
    figure.suptitle(with_its_end(title, room), x=10 / width, y=1 - 6 / height, ha="left", va="top", fontsize=12,
                    fontweight="bold")  # fmt: skip
    figure.text(10 / width, 1 - 28 / height, shorten(subtitle, int(width / 7)), ha="left", va="top", fontsize=9)
    y = height - HEAD
    for name, pixels in pictures.items():
        figure.text(10 / width, (y - LABEL / 2) / height, shorten(name, room), va="center", fontsize=10,
                    fontweight="bold")  # fmt: skip
        y -= LABEL + pixels.shape[0]
        axes = figure.add_axes((0, y / height, pixels.shape[1] / width, pixels.shape[0] / height))
        axes.imshow(pixels, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
    return figure
