"""Figures of two runs compared: their differences, and the figures of an image from each. Knows no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lightning_modules.figures.comparison import MARKERS
from lightning_modules.figures.style import COLORS, in_legend, plain_text, shorten, with_its_end, wrap, wrap_name

DPI = 110
HEAD, LABEL = 44, 26
"""Pixels for what stands above all, and above each picture."""


@plain_text
def differences_figure(
    panels: Mapping[str, Mapping[str, Mapping[str, Any]]], runs: Sequence[str], title: str
) -> Figure:
    """A panel for each score; in it a line for each group, with the difference and the 95 % interval of each run.

    Args:
        panels: What stands above a panel -> group -> run -> ``difference``, ``low`` and ``high``; what misses the first
            is left out.
        runs: All runs, in the order of their colours.
        title: Stands above them.
    """
    groups = list(dict.fromkeys(group for of in panels.values() for group in of))
    columns = min(4, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    height = 0.95 + (0.22 + 0.13 * len(runs)) * len(groups)
    figure = Figure(figsize=(2.1 + 2.4 * columns, 0.9 + rows * height), dpi=DPI, layout="constrained")
    figure.suptitle("\n".join(wrap(title, int(10 * (2 + 2.4 * columns)))), fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    offsets = np.linspace(-0.5, 0.5, len(runs) + 2)[1:-1]
    for axis, (name, of) in zip(axes.flat, panels.items()):
        axis.axvline(0, color="0.4", linestyle="--", linewidth=1)
        for y, group in enumerate(groups):
            for k, run in enumerate(runs):
                score = of.get(group, {}).get(run)
                if score is None or score["difference"] is None:
                    continue
                low, high = (score["difference"] if score[end] is None else score[end] for end in ("low", "high"))
                error = [[score["difference"] - low], [high - score["difference"]]]
                style: Any = {"fmt": MARKERS[k % len(MARKERS)], "color": COLORS[k % len(COLORS)], "capsize": 3}
                axis.errorbar(score["difference"], y + offsets[k], xerr=np.maximum(error, 0), markersize=5, **style)
        axis.set_title(name, fontsize=9)
        axis.set_yticks(range(len(groups)), [wrap_name(group) for group in groups], fontsize=9)
        axis.set_ylim(len(groups) - 0.5, -0.5)
        axis.tick_params(axis="x", labelsize=8)
        axis.locator_params(axis="x", nbins=5)
        axis.grid(axis="x", alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    if len(runs) > 1:
        marks = [
            Line2D([], [], linestyle="", marker=MARKERS[k % len(MARKERS)], color=COLORS[k % len(COLORS)])
            for k in range(len(runs))
        ]
        names = [in_legend(shorten(run, 40)) for run in runs]
        figure.legend(marks, names, loc="outside lower center", ncols=min(4, len(runs)), fontsize=9)
    return figure


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
