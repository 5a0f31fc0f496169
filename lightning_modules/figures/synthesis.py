"""Optimized images -> matplotlib figures: contact sheets, and how an image grew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_modules.figures.layers import layer_sheets, layers_with_sheets
from lightning_modules.figures.saving import Drawing, pixels_of
from lightning_modules.figures.style import COLORS, heading, plain_text, shorten, with_its_end, wrap
from lightning_modules.synthesis.maximization import VARIANTS, Progress
from lightning_modules.synthesis.regularizers import total_variation
from lightning_modules.text import plain_name

ACTIVATION_COLOR, VARIATION_COLOR = COLORS[:2]
N_SNAPSHOTS = 7
TILES_PER_SHEET = 48


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
    figure, axes = _grid(rows, columns, title, lines=_most_lines(tiles))
    for place, tile in zip(axes.flat, tiles):
        _show(place, tile)
    return figure


def run_sheets(
    rows: Sequence[Mapping[str, Any]],
    run: Path,
    further: Callable[[Mapping[str, Any]], Sequence[str]] = lambda row: (),
) -> Iterator[tuple[str, Figure]]:
    """Contact sheets of all images of a run.

    Layers of which many channels were made have sheets of their own, see :func:`layer_sheets`. Each comes with its file
    name, and when it is asked for: all at once might fill the memory.

    Args:
        rows: The rows of the run.
        run: Its folder, which holds the images.
        further: What else stands below an image, in lines, from its row.
    """

    def tile(row: Mapping[str, Any]) -> Tile:
        return _tile(row, run / "images", further(row))

    good = [row for row in rows if row["status"] == "ok"]
    by_variant = {name: group for name in VARIANTS if (group := [row for row in good if row["variant"] == name])}
    layers = layers_with_sheets(rows)
    for variant, of_variant in by_variant.items():
        alone = "" if len(by_variant) == 1 else f": {variant}"
        group = [row for row in of_variant if row["layer"] not in layers]
        for page, start in enumerate(range(0, len(group), TILES_PER_SHEET)):
            part = group[start : start + TILES_PER_SHEET]
            which = f", {start + 1} to {start + len(part)} of {len(group)}" if len(part) < len(group) else ""
            name = f"contact_sheet_{plain_name(variant)}_{page:03d}"
            yield name, contact_sheet([tile(row) for row in part], f"{run.name}{alone}{which}")
        of_layers = [row for row in rows if row["variant"] == variant and row["layer"] in layers]
        yield from layer_sheets(of_layers, run / "images", f"{run.name}{alone}", plain_name(variant))


def _tile(row: Mapping[str, Any], images: Path, further: Sequence[str]) -> Tile:
    """A row as an image, its name, and its numbers: p and under fresh shifts, or activations for a channel."""
    measure = "activation" if row["probability"] is None else "probability"
    before, after = row[measure], row[f"{measure}_shifted"]
    text = f"{before:.2f}" if measure == "activation" else f"p {before:.1%}"
    shifted = f"{after:.2f}" if measure == "activation" else f"{after:.1%}"
    lines = [f"{text}, shifted {shifted}", f"TV {row['total_variation']:.4f}", *(shorten(line, 34) for line in further)]
    pixels = pixels_of(images / row["image"])
    name = shorten(row["name"], 22) if row["layer"] is None else with_its_end(row["name"], 22)
    return Tile(pixels, f"{name}, seed {row['seed']}" if row["seed"] else name, "\n".join(lines))


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
    left, right = 1.1, 1.1  # inches: room for numbers of many digits, and for what they are
    width = 1.75 * len(snapshots) + left + right - 0.2
    figure = Figure(figsize=(width, 4.6), dpi=110)
    grid = figure.add_gridspec(
        2,
        len(snapshots),
        height_ratios=[1, 0.9],
        left=left / width,
        right=1 - right / width,
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
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("activation (transformed)", color=ACTIVATION_COLOR)
    axes.margins(x=0.01)
    other = axes.twinx()
    other.plot(steps, variation, "--", color=VARIATION_COLOR, linewidth=1)
    other.set_ylabel("total variation", color=VARIATION_COLOR)
    return figure


class Growth:
    """What the figure of how an image grew needs: its numbers at each step, and snapshots of it."""

    def __init__(self, steps: int) -> None:
        # Each snapshot after half the steps of the next: most happens early.
        self.at = sorted({max(1, round(steps / 2**k)) for k in range(N_SNAPSHOTS)})
        self.snapshots: dict[int, np.ndarray] = {}
        self.numbers: list[tuple[Tensor, Tensor]] = []

    def add(self, progress: Progress, i: int) -> None:
        self.numbers.append((progress.activation[i], total_variation(progress.images[i : i + 1])[0]))
        if progress.step in self.at:
            self.snapshots[progress.step] = to_uint8(progress.images[i])

    def draw(self, title: str) -> Drawing:
        """What draws the figure."""
        activation, variation = (torch.stack(column).tolist() for column in zip(*self.numbers))
        return partial(growth_figure, self.snapshots, activation, variation, title)


def to_uint8(image: Tensor) -> np.ndarray:
    """An image ``(3, H, W)`` as uint8 ``(H, W, 3)``; see :func:`as_bytes`."""
    return as_bytes(image).cpu().numpy()


def as_bytes(image: Tensor) -> Tensor:
    """An image ``(3, H, W)`` in 8 bits where it lies, uint8 ``(H, W, 3)``.

    What lies beyond 0 or 1 is black or white, what is NaN is grey.
    """
    finite = image.detach().float().nan_to_num(0.5).clamp(0, 1)
    return (finite * 255).round().byte().permute(1, 2, 0)


def _most_lines(tiles: Sequence[Tile]) -> int:
    return max((tile.caption.count("\n") + 1 for tile in tiles), default=2)


def _grid(rows: int, columns: int, title: str, lines: int) -> tuple[Figure, np.ndarray]:
    """A figure of square places with room for a title and so many lines each."""
    cell_width, below = 1.9, 0.14 * max(0, lines - 2)
    cell_height = 2.4 + below
    width = columns * cell_width + 0.2
    # An inch holds about nine of the title's letters.
    title = "\n".join(part for line in title.splitlines() for part in wrap(line, int(9 * width)))
    top = 0.3 + 0.2 * title.count("\n")
    height = rows * cell_height + top + 0.1
    figure = Figure(figsize=(width, height), dpi=110)
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.1 / width, right=1 - 0.1 / width, bottom=(0.45 + below) / height,
        top=1 - (top + 0.25) / height, wspace=0.1, hspace=0.36 + below / 1.7,
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
