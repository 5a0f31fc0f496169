"""Many small images on one page, each with a few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import chop_cells

from lightning_modules.figures.style import plain_text, shorten, with_its_end, wrap

DPI = 110
GAP, MARGIN, LINE = 8, 12, 12
"""Pixels between images, round the page, and of a line of small letters."""

LETTER = 6.2
"""Pixels of a small letter, on average."""

MOST_LINES = 2
"""Below an image."""

LABEL = 168
"""Pixels for what stands at the left of the rows."""


class Cell(NamedTuple):
    """A place of a mosaic.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, shown as a square; None = an empty frame.
        head: Stands above it, at the left.
        note: Stands above it, at the right.
        foot: Stands below it, in the lines that it has, or else in at most two; of what is longer, the end.
    """

    pixels: np.ndarray | None
    head: str = ""
    note: str = ""
    foot: str = ""


@plain_text
def mosaic(rows: Sequence[Sequence[Cell]], title: str, side: int = 112, labels: Sequence[str] = ()) -> Figure:
    """Rows of squares of ``side`` pixels each, drawn pixel by pixel, so that hundreds take no time.

    Args:
        rows: The places; a row may be shorter than others.
        title: Stands above them.
        side: Height and width in pixels of each.
        labels: What stands at the left of each row, in as many lines as it has; none leave no room for it.
    """
    left = MARGIN + (LABEL if labels else 0)
    room = int(side / LETTER)
    lines = max((len(_lines(cell.foot, room)) for row in rows for cell in row), default=0)
    step_x, step_y = side + GAP, LINE + 2 + side + lines * LINE + GAP
    width = max(360, left + max(map(len, rows), default=1) * step_x - GAP + MARGIN)
    heading = "\n".join(part for line in title.splitlines() for part in wrap(line, int(width / 9.5)))
    top = MARGIN + 18 * (heading.count("\n") + 1) + 6
    height = top + len(rows) * step_y + MARGIN
    page = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    small: Any = {"fontsize": 6.5, "color": "#222222"}
    for i, label in enumerate(labels):
        first, _, further = label.partition("\n")
        y = top + i * step_y + LINE + 2
        axes.text(MARGIN, y, first, ha="left", va="top", fontsize=8, fontweight="bold", color="#222222")
        axes.text(MARGIN, y + 16, further, ha="left", va="top", **{**small, "linespacing": 1.5})
    for i, row in enumerate(rows):
        for k, cell in enumerate(row):
            x, y = left + k * step_x, top + i * step_y + LINE + 2
            page[y : y + side, x : x + side] = _square(cell.pixels, side)
            head = with_its_end(cell.head, max(1, room - len(cell.note) - 1))
            axes.text(x, y - 2, head, ha="left", va="bottom", **small)
            axes.text(x + side, y - 2, cell.note, ha="right", va="bottom", **{**small, "color": "#777777"})
            for number, line in enumerate(_lines(cell.foot, room)):
                axes.text(x, y + side + 2 + number * LINE, line, ha="left", va="top", **small)
    axes.imshow(page, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.text(MARGIN, MARGIN, heading, ha="left", va="top", fontsize=10, fontweight="bold")
    return figure


def _square(pixels: np.ndarray | None, side: int) -> np.ndarray:
    if pixels is not None:
        return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.LANCZOS))
    empty = np.full((side, side, 3), 240, np.uint8)
    empty[:1], empty[-1:], empty[:, :1], empty[:, -1:] = (200,) * 4
    return empty


def _lines(text: str, room: int) -> list[str]:
    """The text, or its end, in lines of ``room`` letters; a text that has lines keeps them, each cut short."""
    if not text:
        return []
    if "\n" in text:
        return [shorten(line, room) for line in text.split("\n")]
    lines = chop_cells(with_its_end(text, MOST_LINES * room), room)
    if len(lines) > MOST_LINES:  # a wide letter does not fit into the last place of a line
        lines = chop_cells(with_its_end(text, MOST_LINES * (room - 1)), room)
    return lines
