"""Sheets of a layer: an image of each of its channels, small, many to a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.mosaic import Cell, mosaic
from lightning_modules.figures.saving import pixels_of
from lightning_modules.figures.style import brief
from lightning_modules.text import plain_name

FEW = 8
"""So many images of a layer have their places among those of classes, where they are larger."""

MOST_COLUMNS, MOST_ROWS = 16, 10


def layers_with_sheets(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """The layers of which there are more than a few images of any variant."""
    counts = Counter((row["layer"], row["variant"]) for row in rows if row["layer"] is not None)
    return {layer for (layer, _), n in counts.items() if n > FEW}


def layer_sheets(
    rows: Sequence[Mapping[str, Any]], images: Path, title: str, variant: str
) -> Iterator[tuple[str, Figure]]:
    """The images of each layer in the order of its channels, each with its number and its activation.

    An image that failed has an empty frame in its place.

    Args:
        rows: Rows of channels, of one variant; the failed ones too.
        images: The folder of the images.
        title: How a title begins.
        variant: A part of the files' names.
    """
    for layer in sorted({row["layer"] for row in rows}):
        name = plain_name(f"layer_{layer}_{variant}")
        of_layer = sorted((row for row in rows if row["layer"] == layer), key=lambda row: (row["target"], row["seed"]))
        seeds = {row["seed"] for row in of_layer}
        cells = [_cell(row, images, tell_seed=len(seeds) > 1) for row in of_layer]
        n_failed = sum(row["status"] != "ok" for row in of_layer)
        failed = f", {n_failed} failed (an empty frame)" if n_failed else ""
        columns = min(MOST_COLUMNS, math.ceil(math.sqrt(1.6 * len(cells))))
        for page, start in enumerate(range(0, len(cells), columns * MOST_ROWS)):
            part = cells[start : start + columns * MOST_ROWS]
            which = f", {start + 1} to {start + len(part)} of {len(cells)}" if len(part) < len(cells) else ""
            lines = [part[k : k + columns] for k in range(0, len(part), columns)]
            words = f"{title}: channels of {layer}{which}{failed}; at the right the activation"
            yield f"{name}_{page:03d}", mosaic(lines, words)


def _cell(row: Mapping[str, Any], images: Path, *, tell_seed: bool) -> Cell:
    head = f"{row['target']}" + f", seed {row['seed']}" * tell_seed
    if row["status"] != "ok":
        return Cell(None, head, "failed")
    return Cell(pixels_of(images / row["image"]), head, brief(row["activation"]))
