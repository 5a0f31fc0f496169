"""Sheets of many small images: classes, layers, variants, and the photos that excite a unit most."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from rich.cells import chop_cells

from lightning_modules.figures.saving import pixels_of
from lightning_modules.figures.style import brief, plain_text, shorten, with_its_end, wrap
from lightning_modules.synthesis.maximization import VARIANTS
from lightning_modules.text import plain_name

DPI = 110
GAP, MARGIN, LINE = 8, 12, 12
"""Pixels between images, at the edges of the page, and for a line of small letters."""

LETTER = 6.2
"""Pixels of a small letter, on average."""

MOST_LINES = 2
"""Below an image."""

LABEL = 168
"""Pixels for the labels at the left of the rows."""

CHANNELS_WITH_CLASSES = 8
"""Up to so many channels of a layer are shown among the classes, where images are larger."""

TILES_PER_SHEET, TILE = 48, 176
"""Images of classes on a sheet, and their side in pixels."""

MOST_COLUMNS, MOST_ROWS = 16, 10
"""Of a sheet of a layer."""

MOST_VARIED = 20
UNITS_PER_SHEET = 8

Row = Mapping[str, Any]


class Cell(NamedTuple):
    """A place of a mosaic.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, shown as a square; None = an empty frame.
        head: Text above it, at the left.
        note: Text above it, at the right.
        foot: Text below it. If it has several lines, each is shortened; else its end is shown in at most two lines.
    """

    pixels: np.ndarray | None
    head: str = ""
    note: str = ""
    foot: str = ""


@plain_text
def mosaic(rows: Sequence[Sequence[Cell]], title: str, side: int = 112, labels: Sequence[str] = ()) -> Figure:
    """Rows of squares, drawn pixel by pixel, so that hundreds take no time.

    Args:
        rows: The cells; a row may be shorter than others.
        title: The first line.
        side: Height and width in pixels of each square.
        labels: Text at the left of each row, of one or more lines.
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
    """The lines below an image, of at most ``room`` letters each."""
    if not text:
        return []
    if "\n" in text:
        return [shorten(line, room) for line in text.split("\n")]
    lines = chop_cells(with_its_end(text, MOST_LINES * room), room)
    if len(lines) > MOST_LINES:  # a wide letter does not fit at the end of a line
        lines = chop_cells(with_its_end(text, MOST_LINES * (room - 1)), room)
    return lines


def _cell(row: Row, images: Path, head: str, note: str = "", foot: str = "") -> Cell:
    """The image of a row with its words; an empty frame if it failed."""
    if row["status"] != "ok":
        return Cell(None, head, "failed")
    return Cell(pixels_of(images / row["image"]), head, note, foot)


def _pages(cells: Sequence[Any], n: int) -> Iterator[tuple[int, Sequence[Any], str]]:
    """The number of each page of ``n`` cells, its cells and, if there are several, which of all these are."""
    for page, start in enumerate(range(0, len(cells), n)):
        part = cells[start : start + n]
        which = f", {start + 1} to {start + len(part)} of {len(cells)}" if len(part) < len(cells) else ""
        yield page, part, which


def _in_rows(cells: Sequence[Cell], columns: int) -> list[Sequence[Cell]]:
    return [cells[k : k + columns] for k in range(0, len(cells), columns)]


def run_sheets(
    rows: Sequence[Row], run: Path, further: Callable[[Row], Sequence[str]] = lambda row: ()
) -> Iterator[tuple[str, Figure]]:
    """Contact sheets of all images of a run with their file names, each drawn when it is asked for.

    Layers of which many channels were made have sheets of their own.

    Args:
        rows: The rows of the run, the failed ones too.
        run: Its folder, which holds the images.
        further: Row -> more lines below its image.
    """
    counts = Counter((row["layer"], row["variant"]) for row in rows if row["layer"] is not None)
    layers = {layer for (layer, _), n in counts.items() if n > CHANNELS_WITH_CLASSES}
    variants = [name for name in VARIANTS if any(row["variant"] == name and row["status"] == "ok" for row in rows)]
    images = run / "images"
    for variant in variants:
        title = run.name if len(variants) == 1 else f"{run.name}: {variant}"
        name = plain_name(variant)
        of_variant = [row for row in rows if row["variant"] == variant]
        tiles = [row for row in of_variant if row["status"] == "ok" and row["layer"] not in layers]
        for page, part, which in _pages(tiles, TILES_PER_SHEET):
            lines = _in_rows([_tile(row, images, further(row)) for row in part], 8)
            yield f"contact_sheet_{name}_{page:03d}", mosaic(lines, f"{title}{which}", TILE)
        for layer in sorted(layers):
            channels = [row for row in of_variant if row["layer"] == layer]
            yield from _layer_sheets(channels, images, f"{title}: channels of {layer}", f"layer_{layer}_{variant}")


def _tile(row: Row, images: Path, further: Sequence[str]) -> Cell:
    """An image with its numbers: p and under fresh shifts, or activations for a channel."""
    measure = "activation" if row["probability"] is None else "probability"
    before, after = row[measure], row[f"{measure}_shifted"]
    words = f"{before:.2f}, shifted {after:.2f}" if measure == "activation" else f"p {before:.1%}, shifted {after:.1%}"
    lines = [words, f"TV {row['total_variation']:.4f}", *further]
    name = shorten(row["name"], 22) if row["layer"] is None else with_its_end(row["name"], 22)
    return _cell(row, images, f"{name}, seed {row['seed']}" if row["seed"] else name, foot="\n".join(lines))


def _layer_sheets(rows: Sequence[Row], images: Path, title: str, name: str) -> Iterator[tuple[str, Figure]]:
    """The images of a layer in the order of its channels, each with its number and its activation."""
    rows = sorted(rows, key=lambda row: (row["target"], row["seed"]))
    has_seeds = len({row["seed"] for row in rows}) > 1
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(1.6 * len(rows))))
    n_failed = sum(row["status"] != "ok" for row in rows)
    failed = f", {n_failed} failed (an empty frame)" if n_failed else ""
    for page, part, which in _pages(rows, columns * MOST_ROWS):
        cells = []
        for row in part:
            head = f"{row['target']}" + f", seed {row['seed']}" * has_seeds
            cells.append(_cell(row, images, head, "" if row["status"] != "ok" else brief(row["activation"])))
        words = f"{title}{which}{failed}; at the right the activation"
        yield f"{plain_name(name)}_{page:03d}", mosaic(_in_rows(cells, columns), words)


def variants_figure(
    rows: Sequence[Row], images: Path, labels: Mapping[str, str], title: str, foot: Callable[[Row], str]
) -> Figure:
    """A row of images for each variant, a column for each unit and seed; where one failed, an empty frame.

    Args:
        rows: The rows of a run, the failed ones too.
        images: The folder of the images.
        labels: Variant -> text at its left, in lines; in order.
        title: The first line.
        foot: Row -> text below its image.
    """
    paths = sorted({row["path"] for row in rows})
    by_variant = {(row["variant"], row["path"]): row for row in rows}
    lines = []
    for variant in labels:
        shown = [by_variant[variant, path] for path in paths[:MOST_VARIED] if (variant, path) in by_variant]
        heads = [f"{row['name']}, seed {row['seed']}" if row["seed"] else row["name"] for row in shown]
        feet = [foot(row) if row["status"] == "ok" else "" for row in shown]
        lines.append([_cell(row, images, head, foot=text) for row, head, text in zip(shown, heads, feet)])
    which = f"; the first {MOST_VARIED} of {len(paths)}" if len(paths) > MOST_VARIED else ""
    return mosaic(lines, title + which, labels=list(labels.values()))


def exemplar_sheets(
    rows: Sequence[Row], exemplars: Sequence[Row], images: Path, photos: Path, title: str
) -> Iterator[tuple[str, Figure]]:
    """A line for each unit: the image made of it, then its photos, each with the unit's activation.

    Of several images of a unit, the first seed's is shown; where it failed, there is an empty frame.

    Args:
        rows: Rows of images made, of one variant.
        exemplars: Rows of photos, see :mod:`lightning_modules.exemplars`.
        images: The folder of the images.
        photos: The folder of the photos.
        title: How the titles begin.
    """
    photos_of_unit: dict[str, list[Row]] = {}
    for exemplar in sorted(exemplars, key=lambda exemplar: exemplar["rank"]):
        photos_of_unit.setdefault(exemplar["name"], []).append(exemplar)
    made: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["layer"] or "", row["target"], row["seed"])):
        if row["name"] in photos_of_unit:
            made.setdefault(row["name"], row)
    lines = []
    for name, row in made.items():
        activation = brief(row["activation"]) if row["status"] == "ok" else "failed"
        cells = [_cell(row, images, "made", activation)._replace(foot=name)]
        for photo in photos_of_unit[name]:
            pixels = pixels_of(photos / photo["photo"])
            cells.append(Cell(pixels, f"#{photo['rank']}", brief(photo["value"]), photo["path"]))
        lines.append(cells)
    for page, part, which in _pages(lines, UNITS_PER_SHEET):
        words = f"{title}: what was made, and the photos that excite the same most{which}; with the activation"
        yield f"exemplars_{page:03d}", mosaic(part, words)
