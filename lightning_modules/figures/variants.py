"""Images of the same classes made in several ways, in one figure: an ablation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.mosaic import Cell, mosaic
from lightning_modules.figures.saving import pixels_of

MOST_COLUMNS = 20

Row = Mapping[str, Any]


def variants_figure(
    rows: Sequence[Row], images: Path, labels: Mapping[str, str], title: str, foot: Callable[[Row], str]
) -> Figure:
    """A row of images for each variant, a column for each unit and seed; where one failed, an empty frame.

    Args:
        rows: The rows of a run; the failed ones too.
        images: The folder of the images.
        labels: Variant -> what stands at its left, in lines; in order.
        title: Stands above them.
        foot: Of a row, what stands below its image.
    """
    paths = sorted({row["path"] for row in rows})
    shown = paths[:MOST_COLUMNS]
    places = {(row["variant"], row["path"]): row for row in rows}
    lines = [
        [_cell(places[variant, path], images, foot) for path in shown if (variant, path) in places]
        for variant in labels
    ]
    which = f"; the first {len(shown)} of {len(paths)}" if len(shown) < len(paths) else ""
    return mosaic(lines, title + which, labels=list(labels.values()))


def _cell(row: Row, images: Path, foot: Callable[[Row], str]) -> Cell:
    head = f"{row['name']}, seed {row['seed']}" if row["seed"] else row["name"]
    if row["status"] != "ok":
        return Cell(None, head, "failed")
    return Cell(pixels_of(images / row["image"]), head, foot=foot(row))
