"""Sheets of what was made of a class or channel beside the photos that excite it most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_modules.figures.mosaic import Cell, mosaic
from lightning_modules.figures.saving import pixels_of
from lightning_modules.figures.style import brief

UNITS_PER_SHEET = 8


def exemplar_sheets(
    rows: Sequence[Mapping[str, Any]],
    exemplars: Sequence[Mapping[str, Any]],
    images: Path,
    photos: Path,
    title: str,
) -> Iterator[tuple[str, Figure]]:
    """A line for each unit: the image made of it, then its photos, each with the unit's activation.

    Of several images of a unit, the first seed's is shown; where it failed, there is an empty frame.

    Args:
        rows: Rows of images made, of one variant.
        exemplars: Rows of photos, see :mod:`lightning_modules.exemplars`.
        images: The folder of the images.
        photos: The folder of the photos.
        title: How a title begins.
    """
    by_unit: dict[str, list[Mapping[str, Any]]] = {}
    for exemplar in exemplars:
        by_unit.setdefault(exemplar["name"], []).append(exemplar)
    made: dict[str, Mapping[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["layer"] or "", row["target"], row["seed"])):
        if row["name"] in by_unit:
            made.setdefault(row["name"], row)
    lines = [[_made(row, images), *_photos(by_unit[name], photos)] for name, row in made.items()]
    for page, start in enumerate(range(0, len(lines), UNITS_PER_SHEET)):
        part = lines[start : start + UNITS_PER_SHEET]
        which = f", {start + 1} to {start + len(part)} of {len(lines)}" if len(part) < len(lines) else ""
        words = f"{title}: what was made, and the photos that excite the same most{which}; with the activation"
        yield f"exemplars_{page:03d}", mosaic(part, words)


def _made(row: Mapping[str, Any], images: Path) -> Cell:
    if row["status"] != "ok":
        return Cell(None, "made", "failed", row["name"])
    return Cell(pixels_of(images / row["image"]), "made", brief(row["activation"]), row["name"])


def _photos(exemplars: Sequence[Mapping[str, Any]], photos: Path) -> list[Cell]:
    cells = []
    for exemplar in sorted(exemplars, key=lambda exemplar: exemplar["rank"]):
        pixels = pixels_of(photos / exemplar["photo"])
        cells.append(Cell(pixels, f"#{exemplar['rank']}", brief(exemplar["value"]), exemplar["path"]))
    return cells
