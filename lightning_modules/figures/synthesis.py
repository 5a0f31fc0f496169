"""Optimized images -> matplotlib figures: contact sheets, the ablation, and how an image grew."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_modules.figures.style import COLORS, heading, plain_text, shorten

ACTIVATION_COLOR, VARIATION_COLOR = COLORS[:2]


class Tile(NamedTuple):
    """An image of a sheet.

    Attributes:
        pixels: uint8 ``(H, W, 3)``.
        title: Stands above it.
        caption: Stands below it.
    """

    pixels: np.ndarray
    title: str
    caption: str


@plain_text
def contact_sheet(tiles: Sequence[Tile], title: str, columns: int = 8) -> Figure:
    """The images in rows, each with its title and caption."""
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    figure, axes = _grid(rows, columns, title, margin=0.0)
    for place, tile in zip(axes.flat, tiles):
        _show(place, tile)
    return figure


@plain_text
def ablation_figure(tiles: Mapping[str, Sequence[Tile]], title: str) -> Figure:
    """A row of images for each variant, a column for each unit, each with its numbers underneath.

    Args:
        tiles: Name of the variant, which may have several lines -> its images, in the same order for each variant.
        title: The first lines.
    """
    figure, axes = _grid(len(tiles), max(len(row) for row in tiles.values()), title, margin=2.3)
    for row, (name, images) in zip(axes, tiles.items()):
        for place, tile in zip(row, images):
            _show(place, tile)
        row[0].text(-0.08, 0.5, name, transform=row[0].transAxes, ha="right", va="center", fontsize=10)
    return figure


@plain_text
def growth_figure(
    snapshots: Mapping[int, np.ndarray], activation: Sequence[float], variation: Sequence[float], title: str
) -> Figure:
    """How an image grew: snapshots of it by the number of the step, and the curves.

    Args:
        snapshots: Steps done -> uint8 ``(H, W, 3)``, in order.
        activation: The objective under the transforms, at each step.
        variation: Total variation of the image, at each step.
        title: The first line.
    """
    width = 1.75 * len(snapshots) + 1.3
    figure = Figure(figsize=(width, 4.6), dpi=110)
    grid = figure.add_gridspec(
        2,
        len(snapshots),
        height_ratios=[1, 0.9],
        left=0.75 / width,
        right=1 - 0.75 / width,
        bottom=0.12,
        top=0.84,
        wspace=0.06,
        hspace=0.16,
    )
    heading(figure, title)
    for column, (step, pixels) in enumerate(snapshots.items()):
        _show(figure.add_subplot(grid[0, column]), Tile(pixels, f"step {step}", ""))
    axes = figure.add_subplot(grid[1, :])
    steps = range(1, len(activation) + 1)
    axes.plot(steps, activation, color=ACTIVATION_COLOR, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("activation (transformed)", color=ACTIVATION_COLOR)
    axes.margins(x=0.01)
    other = axes.twinx()
    other.plot(steps, variation, "--", color=VARIATION_COLOR, linewidth=1)
    other.set_ylabel("total variation", color=VARIATION_COLOR)
    return figure


def _grid(rows: int, columns: int, title: str, margin: float) -> tuple[Figure, np.ndarray]:
    """A figure of square places with room for a title and a caption each, and ``margin`` inches at the left."""
    cell_width, cell_height = 1.9, 2.4
    width = margin + columns * cell_width + 0.2
    # An inch holds about nine of the title's letters.
    title = "\n".join(textwrap.fill(line, int(9 * width)) for line in title.splitlines())
    top = 0.3 + 0.2 * title.count("\n")
    height = rows * cell_height + top + 0.1
    figure = Figure(figsize=(width, height), dpi=110)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=(margin + 0.1) / width, right=1 - 0.1 / width, bottom=0.45 / height, top=1 - (top + 0.25) / height,
        wspace=0.1, hspace=0.36,
    )  # fmt: skip
    figure.suptitle(title, x=0.1 / width, y=1 - 0.1 / height, ha="left", va="top", fontsize=11, fontweight="bold")
    for place in axes.flat:
        place.set_axis_off()
    return figure, axes


def _show(axes: Axes, tile: Tile) -> None:
    axes.imshow(tile.pixels)
    axes.set_axis_off()
    axes.set_title(shorten(tile.title, 30), fontsize=9 if len(tile.title) <= 24 else 7.5, pad=3)
    axes.text(0.5, -0.03, tile.caption, transform=axes.transAxes, ha="center", va="top", fontsize=8)
