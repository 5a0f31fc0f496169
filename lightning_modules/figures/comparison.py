"""Figures of a whole attribution run: the methods side by side. Knows no model and no logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_modules.figures.style import COLORS, in_legend, plain_text, wrap_name

MARKERS = "osD^vPX"


@plain_text
def comparison_figure(methods: Mapping[str, Mapping[str, Any]], better: Mapping[str, str]) -> Figure:
    """A panel for each score, a point and its 95 % interval for each method.

    Args:
        methods: Name -> {"scores": {name: {"mean", "low", "high", "n"}}}, as in the summary.
        better: Score -> whether ``higher`` or ``lower`` is better, where that is known.
    """
    names = list(methods)
    scores = [name for name in next(iter(methods.values()))["scores"] if _scored(methods, name)]
    columns = min(4, max(1, len(scores)))
    rows = -(-max(1, len(scores)) // columns)
    figure = Figure(figsize=(2.1 + 2.4 * columns, 0.8 + rows * (0.9 + 0.3 * len(names))), dpi=110, layout="constrained")
    counts = [of["scores"][name]["n"] for of in methods.values() for name in scores]
    n = "-".join(f"{count:,}" for count in sorted({min(counts, default=0), max(counts, default=0)}))
    figure.suptitle(f"Mean and 95 % interval of {n} maps of each method", fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for k, axis in enumerate(axes.flat):
        if k >= len(scores):
            axis.set_visible(False)
            continue
        for y, method in enumerate(names):
            score = methods[method]["scores"][scores[k]]
            if score["n"]:
                # Of one map there is no interval.
                has_interval = score["low"] is not None
                error = [[score["mean"] - score["low"]], [score["high"] - score["mean"]]] if has_interval else None
                axis.errorbar(score["mean"], y, xerr=error, fmt=_marker(y), color=_color(y), capsize=3)
        direction = f"\n({better[scores[k]]} is better)" if scores[k] in better else ""
        axis.set_title(f"{scores[k].replace('_', ' ')}{direction}", fontsize=9)
        axis.set_yticks(range(len(names)), [wrap_name(name) for name in names], fontsize=9)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    return figure


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
