"""The XML files that hold ILSVRC's object boxes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from datamodules.errors import DataError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class AnnotationError(ValueError):
    """A box annotation that cannot be used; the message names the file."""


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
    objects, problems = [], []
    for element in root.iter("object"):
        try:
            left, top, right, bottom = (_number(element, f"bndbox/{corner}") for corner in _CORNERS)
            box = max(left, 0.0), max(top, 0.0), min(right + 1, width), min(bottom + 1, height)
            shown = ", ".join(f"{corner} {of:.15g}" for corner, of in zip(_CORNERS, (left, top, right, bottom)))
            if right < left or bottom < top:
                raise ValueError(f"a box has {shown}")
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError(f"a box lies outside the image: {shown}")
            objects.append((_text(element, "name"), box))
            if box != (left, top, right + 1, bottom + 1):
                problems.append(f"{path}: a box was clipped to the image: {shown}")
        except ValueError as error:
            problems.append(f"{path}: {error}")
    names, boxes = zip(*objects) if objects else ((), ())
    return Annotation(int(width), int(height), names, boxes, tuple(problems))


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


def _text(element: ElementTree.Element, path: str) -> str:
    text = element.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"<{path.replace('/', '><')}> is missing or empty")
    return text.strip()


def _number(element: ElementTree.Element, path: str) -> float:
    number = float(_text(element, path))
    if not math.isfinite(number):
        raise ValueError(f"<{path.replace('/', '><')}> is {number}")
    return number
