"""From one image, wherever it lies, to one sample; from samples to a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.batch import Original
from datamodules.classes import ClassTable
from datamodules.reading.annotations import AnnotationError, find_annotation, read_annotation
from datamodules.reading.decoding import DecodingError, decode_image
from datamodules.sources.listing import printable

ORIGINAL_SIZE = 1024
"""Originals that travel with a batch are reduced to at most this many pixels a side: they are for figures."""


class SampleReader:
    """Makes samples of images; one that fails gives ``{"failed": (path, error)}``.

    Args:
        transform: RGB image -> float32 ``(3, H, W)`` in [0, 1].
        boxes: Folder of ILSVRC's XML annotations, or None.
        class_names: Names of the network's classes, to label the boxes by.
        n_originals: For the first so many images, the sample carries the original pixels too.
    """

    def __init__(
        self,
        transform: Any,
        boxes: Path | None = None,
        class_names: Sequence[str] | None = None,
        n_originals: int = 0,
    ) -> None:
        self.transform = transform
        self.boxes = boxes
        self.classes = ClassTable(class_names or [])
        self.n_originals = n_originals

    def read(
        self, source: str | os.PathLike[str] | bytes, path: str, label: int, index: int, annotation: bytes | None = None
    ) -> dict[str, Any]:
        """One sample.

        Args:
            source: The file, or its content.
            path: How the rows call it, relative to the root.
            label: Index of its class, -1 = unlabelled.
            index: Its number in the data set; the first ones get figures.
            annotation: Content of the XML file of its boxes. None = look into ``boxes``.
        """
        try:
            image = decode_image(source)
        except DecodingError as error:
            return failed(path, str(error))
        boxes, box_labels, box_error = self._read_boxes(path, image, annotation)
        return {
            "image": self.transform(image),
            "label": label,
            "index": index,
            "path": printable(path),
            "boxes": boxes,
            "box_labels": box_labels,
            "box_error": box_error,
            "original": self._original(image) if index < self.n_originals else None,
        }

    def _read_boxes(self, path: str, image: Image.Image, content: bytes | None) -> tuple[Tensor, Tensor, str | None]:
        """Boxes ``(K, 4)`` in what the model sees, their labels ``(K,)``, and what was wrong with the annotation."""
        empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
        file = Path(f"{path}.xml") if content is not None else find_annotation(self.boxes, path)
        if file is None:
            return *empty, None
        try:
            annotation = read_annotation(file, content)
        except AnnotationError as error:
            return *empty, str(error)
        size = annotation.width, annotation.height
        if size != image.size:
            return *empty, f"{file} is of an image of {size[0]} × {size[1]} pixels, not {image.width} × {image.height}"
        found = [self.classes.named(name) for name in annotation.names]
        labels = [-1 if label is None else label for label in found]
        boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
        moved = self.transform.move_boxes(boxes, *image.size)
        return moved, torch.tensor(labels, dtype=torch.long), "; ".join(annotation.problems) or None

    def _original(self, image: Image.Image) -> Original:
        scale = min(1.0, ORIGINAL_SIZE / max(image.size))
        reduced = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        x, y = reduced.width / image.width, reduced.height / image.height
        left, top, right, bottom = self.transform.view(*image.size)
        return Original(np.array(reduced), (left * x, top * y, right * x, bottom * y))


def failed(path: str, error: str) -> dict[str, Any]:
    """The sample of an image that could not be read."""
    return {"failed": (printable(path), error)}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> batch: ``image`` float32 ``(N, 3, H, W)`` and so on; N counts the images that did not fail.

    The batch holds ``image``, ``label`` and ``index`` (long ``(N,)``), ``path``, ``boxes`` (N of ``(K, 4)``),
    ``box_labels`` (N of ``(K,)``, -1 = unknown), ``box_error`` (N of str or None), ``original`` (N of
    :class:`Original` or None), and ``failed``, a list of (path, error).
    """
    good = [sample for sample in samples if "failed" not in sample]
    batch: dict[str, Any] = {
        name: [sample[name] for sample in good] for name in ("path", "boxes", "box_labels", "box_error", "original")
    }
    batch["image"] = torch.stack([s["image"] for s in good]) if good else torch.zeros(0, 3, 1, 1)
    for name in ("label", "index"):
        batch[name] = torch.tensor([sample[name] for sample in good], dtype=torch.long)
    batch["failed"] = [sample["failed"] for sample in samples if "failed" in sample]
    return batch
