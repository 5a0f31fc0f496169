"""Figure of how near the nearest images lie that fool. Knows no model and no logger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.style import COLORS, heading, plain_text


@plain_text
def nearest_figure(nearest: Mapping[str, Any], title: str) -> Figure:
    """The accuracy that is left over the distance of the nearest image that fools.

    Args:
        nearest: See :func:`~lightning_modules.results.summaries.nearest.with_nearest`.
        title: The first line.
    """
    figure = Figure(figsize=(6.5, 4.6), dpi=110)
    figure.subplots_adjust(left=0.12, right=0.97, bottom=0.12, top=0.85)
    heading(figure, title)
    axes = figure.subplots()
    axes.step(nearest["curve"]["distance"], nearest["curve"]["accuracy"], where="post", color=COLORS[0])
    axes.set_title(f"accuracy; of {nearest['n_found']:,} of {nearest['n']:,} images one was found", fontsize=10)
    axes.set_xlabel(f"distance in the norm {nearest['norm']}", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.set_xlim(left=0)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    return figure
