"""What the folder of box annotations says of images that were found: their classes, and whether it fits them at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.errors import some
from datamodules.reading.annotations import AnnotationError, find_annotation, read_annotation
from datamodules.reading.samples import printable

_LOOKED_FOR, _LOOKED_INTO = 1000, 50
"""So many images, spread over all, tell whether a folder of boxes is that of these images."""


def classes_of_boxes(file: Path | None, content: bytes | None, table: ClassTable) -> set[int]:
    """The classes of the network that an image's boxes name; none if their file cannot be read.

    Args:
        file: The XML file. None = there is none.
        content: What it holds, if it has been read already.
    """
    return classes_named(names_of_boxes(file, content) or (), table)


def classes_named(names: Iterable[str], table: ClassTable) -> set[int]:
    """The classes of the network that boxes of these names are of."""
    found = set()
    for name in set(names):
        with suppress(AmbiguousClassError):  # which the row of the image tells
            found.add(table.named(name))
    return {label for label in found if label is not None}


def label_by_boxes(paths: pa.Array, labels: np.ndarray, boxes: Path, table: ClassTable) -> list[str]:
    """Labels, in place, what is unlabelled and has boxes of one class; says how many."""
    n_labelled, several = 0, []
    for index in np.flatnonzero(labels < 0).tolist():
        path = os.fsdecode(paths[index].as_py())
        classes = classes_of_boxes(find_annotation(boxes, path), None, table)
        if len(classes) == 1:
            labels[index] = classes.pop()
            n_labelled += 1
        elif classes:
            several.append(printable(path))
    notes = [f"{n_labelled:,} images are labelled by the class that their boxes name"] if n_labelled else []
    if several:
        notes.append(f"{len(several):,} images have boxes of several classes, so no label: {some(several)}")
    return notes


def notes_of_boxes(paths: pa.Array, boxes: Path, table: ClassTable | None) -> list[str]:
    """What to say if a folder of boxes seems to be that of other images, or of another network; [] = nothing.

    Images may lack boxes, and boxes may be of other things; but if all are so, scores of boxes come out empty.
    """
    spread = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_FOR)).astype(int)).tolist()
    files = [(path, find_annotation(boxes, path)) for path in (os.fsdecode(paths[k].as_py()) for k in spread)]
    found = [file for _, file in files if file is not None]
    if not found:
        first = Path(printable(files[0][0]))
        places = dict.fromkeys((str(first.with_suffix(".xml")), f"{first.stem}.xml"))
        return [f"none of {len(files):,} images has boxes in {boxes}, where {first} would have {' or '.join(places)}"]
    notes = []
    of_file: dict[Path, str] = {}
    for path, file in files:
        if file is not None and (other := of_file.setdefault(file, path)) != path:
            notes.append(f"{printable(other)} and {printable(path)}, at least, have the same boxes: {file}")
            break
    names = {name for file in found[:_LOOKED_INTO] for name in names_of_boxes(file, None) or ()}
    if table is None or not names or any(table.is_named(name) for name in names):
        return notes
    return [*notes, f"the boxes in {boxes} are of no class of the network: {some(sorted(names))}"]


def names_of_boxes(file: Path | None, content: bytes | None = None) -> tuple[str, ...] | None:
    """What an annotation calls its objects; () = it cannot be read, None = there is none."""
    try:
        return None if file is None else read_annotation(file, content).names
    except AnnotationError:  # which the row of the image tells
        return ()
