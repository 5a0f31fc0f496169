"""ILSVRC's boxes: the XML files that hold them, where they go in what a network sees, which classes they name."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from datamodules.batch import UPRIGHT
from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.errors import AnnotationError, DataError, printable, some
from datamodules.preprocess import Preprocess

_CORNERS = ("xmin", "ymin", "xmax", "ymax")

_LOOKED_FOR, _LOOKED_INTO = 1000, 50
"""So many images, spread over all, tell whether a folder of boxes is that of these images."""


@dataclass(frozen=True)
class Annotation:
    """The objects of one image: ``names[i]`` (a class name or WordNet id) fills ``boxes[i]``.

    Boxes are (left, top, right, bottom) in pixels of an image of ``width`` × ``height``, right and bottom exclusive.
    ``problems`` says what was wrong with boxes that had to be left out or clipped.
    """

    width: int
    height: int
    names: tuple[str, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    problems: tuple[str, ...] = ()


def read_annotation(path: Path, content: bytes | None = None) -> Annotation:
    """Reads an annotation in the XML layout of ILSVRC (that of Pascal VOC).

    The files count pixels from 0 and include the last one, so 1 is added to ``xmax`` and ``ymax``.

    A box that is malformed or lies outside the image is left out, one that reaches beyond it is clipped; both are told
    in ``problems``.

    Args:
        path: The file.
        content: What it holds, if it has been read already; ``path`` is then its name in messages.

    Raises:
        AnnotationError: If the file cannot be read, or is malformed outside the objects.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes() if content is None else content)
        width, height = (_number(root, f"size/{side}") for side in ("width", "height"))
        if not 1 <= min(width, height) <= max(width, height) < 1e9:
            raise ValueError(f"no image has {width:.15g} × {height:.15g} pixels")
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:  # LookupError: the encoding
        raise AnnotationError(f"{path}: {error}") from error
    names, boxes, problems = [], [], []
    for element in root.iter("object"):
        try:
            left, top, right, bottom = (_number(element, f"bndbox/{corner}") for corner in _CORNERS)
            shown = ", ".join(f"{name} {value:.15g}" for name, value in zip(_CORNERS, (left, top, right, bottom)))
            box = max(left, 0.0), max(top, 0.0), min(right + 1, width), min(bottom + 1, height)
            if right < left or bottom < top:
                raise ValueError(f"a box has {shown}")
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(f"a box lies outside the image: {shown}")
            if not (name := (element.findtext("name") or "").strip()):
                raise ValueError("<name> is missing or empty")
            names.append(name)
            boxes.append(box)
            if box != (left, top, right + 1, bottom + 1):
                problems.append(f"{path}: a box was clipped to the image: {shown}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    return Annotation(int(width), int(height), tuple(names), tuple(boxes), tuple(problems))


def folder_of_boxes(boxes: str | Path | None) -> Path | None:
    """The folder that data.boxes names.

    Raises:
        DataError: If there is none.
    """
    if boxes is None:
        return None
    folder = Path(boxes).expanduser()
    if not folder.is_dir():
        wrong = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"The folder of box annotations {boxes} (data.boxes) {wrong}.")
    return folder


def find_annotation(boxes: Path | None, path: str) -> Path | None:
    """The XML file of an image's boxes: ILSVRC keeps those of train in class folders, those of val in a flat one.

    Those of an image that lies deeper below its class folder may lie as deep, or in the class folder itself.
    """
    if boxes is None:
        return None
    folders, name = Path(path).parts[:-1], f"{Path(path).stem}.xml"
    candidates = [Path(boxes, *folders, name), *([boxes / folders[0] / name] if len(folders) > 1 else []), boxes / name]
    return next((candidate for candidate in candidates if candidate.exists()), None)


class BoxesInView(NamedTuple):
    """The boxes of an image, before anybody knows the network's classes.

    Attributes:
        boxes: Left, top, right, bottom in pixels of what the network sees, float32 ``(K, 4)``.
        names: What the annotation calls the K objects, also where their boxes cannot be used; None = there is none.
        error: What is wrong with the annotation; None = nothing.
    """

    boxes: Tensor
    names: tuple[str, ...] | None
    error: str | None


NO_BOXES = BoxesInView(torch.zeros(0, 4), None, None)


def boxes_in_view(
    preprocess: Preprocess, file: Path, content: bytes | None, size: tuple[int, int], orientation: int, is_turned: bool
) -> BoxesInView:
    """The boxes of an annotation as a network sees them.

    An annotation may be of the image as it lies in the file, or as its orientation turns it. Its size tells which,
    where width and height are exchanged and differ.

    Args:
        preprocess: What the network sees of an image.
        file: The XML file.
        content: What it holds, if it has been read already.
        size: Width and height of the decoded image.
        orientation: The EXIF orientation that the image asks for ...
        is_turned: ... and whether it was turned so.
    """
    try:
        annotation = read_annotation(file, content)
    except AnnotationError as error:
        return BoxesInView(torch.zeros(0, 4), (), str(error))
    boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
    annotated, (width, height) = (annotation.width, annotation.height), size
    can_be_told = orientation >= 5 and width != height
    problem = None
    if annotated != size and not (can_be_told and annotated == (height, width)):
        problem = f"{file} is of an image of {annotated[0]} × {annotated[1]} pixels, not {width} × {height}"
    elif can_be_told and annotated != size:
        turn = orientation if is_turned else {6: 8, 8: 6}.get(orientation, orientation)
        boxes = _exchanged(boxes, width, height, turn)
    elif orientation != UPRIGHT and not can_be_told and len(boxes):
        problem = (
            f"{file} is of an image with the EXIF orientation {orientation}, which leaves it {width} × {height} pixels"
            ": whether the boxes are of the image before or after it is turned cannot be told"
        )
    if problem is not None:
        return BoxesInView(torch.zeros(0, 4), annotation.names, problem)
    return BoxesInView(preprocess.move_boxes(boxes, *size), annotation.names, "; ".join(annotation.problems) or None)


def _exchanged(boxes: Tensor, width: int, height: int, orientation: int) -> Tensor:
    """Boxes after a turn that exchanges the axes, by one of the orientations 5 to 8, into ``width`` × ``height``."""
    left, top, right, bottom = boxes[:, [1, 0, 3, 2]].unbind(1)
    if orientation in (6, 7):
        left, right = width - right, width - left
    if orientation in (7, 8):
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], 1)


def classes_named(names: Iterable[str], table: ClassTable) -> set[int]:
    """The classes of the network that boxes of these names are of."""
    found = set()
    for name in set(names):
        with suppress(AmbiguousClassError):  # which the row of the image says
            found.add(table.named(name))
    return {label for label in found if label is not None}


def names_of_boxes(file: Path | None, content: bytes | None = None) -> tuple[str, ...] | None:
    """What an annotation calls its objects; () = it cannot be read, None = there is none."""
    try:
        return None if file is None else read_annotation(file, content).names
    except AnnotationError:  # which the row of the image says
        return ()


def notes_of_boxes(paths: pa.Array, boxes: Path, table: ClassTable | None) -> list[str]:
    """What to say if a folder of boxes seems to be that of other images, or of another network; [] = nothing.

    Images may lack boxes, and boxes may be of other things; but if all are so, scores of boxes come out empty.
    """
    spread = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _LOOKED_FOR)).astype(int))
    looked_at = [os.fsdecode(path) for path in paths.take(pa.array(spread)).to_pylist()]
    notes, found = [], dict[Path, str]()
    for path in looked_at:
        if (file := find_annotation(boxes, path)) and (other := found.setdefault(file, path)) != path:
            notes = [f"{printable(other)} and {printable(path)}, at least, have the same boxes: {file}"]
    if not found:
        first = Path(printable(looked_at[0]))
        places = dict.fromkeys((str(first.with_suffix(".xml")), f"{first.stem}.xml"))
        return [f"none of {len(spread):,} images has boxes in {boxes}, where {first} would have {' or '.join(places)}"]
    names = {name for file in [*found][:_LOOKED_INTO] for name in names_of_boxes(file) or ()}
    if table is not None and names and not any(map(table.is_named, names)):
        notes.append(f"the boxes in {boxes} are of no class of the network: {some(sorted(names))}")
    return notes


def write_annotation(path: Path, annotation: Annotation) -> None:
    """Writes ``annotation`` so that :func:`read_annotation` reads it back."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = path.stem
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", annotation.width), ("height", annotation.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for name, (left, top, right, bottom) in zip(annotation.names, annotation.boxes):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = name
        box = ElementTree.SubElement(element, "bndbox")
        for corner, position in zip(_CORNERS, (left, top, right - 1, bottom - 1)):
            ElementTree.SubElement(box, corner).text = f"{position:g}"
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _number(element: ElementTree.Element, path: str) -> float:
    number = float(element.findtext(path) or "nan")
    if not math.isfinite(number):
        raise ValueError(f"<{path.replace('/', '><')}> should be a number, got {element.findtext(path)!r}")
    return number
