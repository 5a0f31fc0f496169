"""The boxes of an annotation, moved to what a network sees of its image."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.reading.annotations import AnnotationError, read_annotation
from datamodules.reading.decoding import Preprocess
from datamodules.reading.orientation import boxes_as_seen


class SeenBoxes(NamedTuple):
    """The boxes of an image, before anybody knows the network's classes.

    Attributes:
        boxes: Left, top, right, bottom in pixels of what the network sees, float32 ``(K, 4)``.
        names: What the annotation calls the K objects; where their boxes cannot be used there are names alone.
        error: What is wrong with the annotation; None = nothing.
    """

    boxes: Tensor
    names: tuple[str, ...]
    error: str | None


def no_boxes(names: tuple[str, ...] = (), error: str | None = None) -> SeenBoxes:
    """What an image has whose boxes are not there, or cannot be used."""
    return SeenBoxes(torch.zeros(0, 4), names, error)


def seen_boxes(
    preprocess: Preprocess,
    file: Path,
    content: bytes | None,
    size: tuple[int, int],
    orientation: int,
    is_turned: bool,
) -> SeenBoxes:
    """The boxes of an annotation as a network sees them.

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
        return no_boxes((), str(error))
    boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
    annotated = annotation.width, annotation.height
    try:
        boxes = boxes_as_seen(boxes, annotated, size, orientation, is_turned)
    except AnnotationError as error:
        return no_boxes(annotation.names, f"{file} {error}")
    return SeenBoxes(preprocess.move_boxes(boxes, *size), annotation.names, "; ".join(annotation.problems) or None)
