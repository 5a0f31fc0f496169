"""From one image, wherever it lies, to one sample, or to a failure that names it; from samples to a batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.batch import Batch, Original
from datamodules.boxes import NO_BOXES, boxes_in_view, find_annotation
from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.errors import DecodingError, printable
from datamodules.images.decode import read_image
from datamodules.preprocess import Preprocess

NO_IMAGES = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
"""What a batch of failures alone holds."""
NO_LABELS = torch.zeros(0, dtype=torch.long)
ORIGINAL_SIZE = 1024
"""Originals that travel with a batch are reduced to at most this many pixels a side: they are for figures."""


@final
class Sample(TypedDict):
    """One image that could be read: what a :class:`~datamodules.batch.Batch` holds N of, by the same names, and more.

    Attributes:
        image: uint8 ``(3, H, W)``, what the network sees.
        boxes: Those of its K objects, ``(K, 4)``.
        box_names: What its annotation calls them, also where their boxes cannot be used; None = it has none.
        box_labels: Their classes, ``(K,)``.
        size: Width and height in pixels of the image before resize and crop.
        orientation: The EXIF orientation that its file asks for, 1 to 8 ...
        is_turned: ... and whether it was turned so.
    """

    image: Tensor
    path: str
    label: int
    index: int
    boxes: Tensor
    box_names: Sequence[str] | None
    box_labels: Tensor
    box_error: str | None
    size: tuple[int, int]
    orientation: int
    is_turned: bool
    file_columns: dict[str, Any]
    original: Original | None


@final
class Failure(TypedDict):
    """One image that could not be read: its path, and the error."""

    failed: tuple[str, str]


class SampleReader:
    """Makes samples of images; several threads may use it at once.

    Args:
        preprocess: What the network sees of an image.
        boxes: Folder of ILSVRC's XML annotations, or None.
        class_names: Names of the network's classes, to label the boxes by.
        n_originals: For the first so many images, the sample carries the original pixels too.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        boxes: Path | None = None,
        class_names: Sequence[str] | None = None,
        n_originals: int = 0,
        exif_orientation: bool = False,
    ) -> None:
        self.preprocess = preprocess
        self.boxes = boxes
        self.classes = ClassTable([] if class_names is None else class_names)
        self.n_originals = n_originals
        self.exif_orientation = exif_orientation

    def read(
        self, source: str | os.PathLike[str] | bytes, path: str, label: int, index: int, annotation: bytes | None = None
    ) -> Sample | Failure:
        """One sample.

        Args:
            source: The file, or its content.
            path: How the rows call it, relative to the root.
            label: Index of its class, -1 = unlabelled.
            index: Its number in the data set; the first ones get figures.
            annotation: Content of the XML file of its boxes. None = look into ``boxes``.
        """
        sample = self.prepare(source, path, index, annotation)
        return sample if "failed" in sample else self.labelled(sample, label)

    def prepare(
        self, source: str | os.PathLike[str] | bytes, path: str, index: int, annotation: bytes | None = None
    ) -> Sample | Failure:
        """A sample of which nothing is labelled yet; see :meth:`read`."""
        try:
            decoded = read_image(source, self.exif_orientation, path)
            levels = self.preprocess.levels(decoded.image)
        except DecodingError as error:
            return failed(path, str(error))
        image, how = decoded.image, (decoded.image.size, decoded.orientation, decoded.is_turned)
        file = Path(f"{path}.xml") if annotation is not None else find_annotation(self.boxes, path)
        boxes, names, box_error = NO_BOXES if file is None else boxes_in_view(self.preprocess, file, annotation, *how)
        return {
            "image": levels,
            "path": printable(path),
            "label": -1,
            "index": index,
            "boxes": boxes,
            "box_names": names,
            "box_labels": NO_LABELS,
            "box_error": box_error,
            "size": image.size,
            "orientation": decoded.orientation,
            "is_turned": decoded.is_turned,
            "file_columns": decoded.columns(),
            "original": self._original(image) if index < self.n_originals else None,
        }

    def labelled(self, sample: Sample, label: int) -> Sample:
        """The sample with its label, and its boxes labelled by the network's classes, -1 = none of them."""
        labels, problems = [], [sample["box_error"]]
        for name in (sample["box_names"] or ()) if len(sample["boxes"]) else ():
            try:
                found = self.classes.named(name)
            except AmbiguousClassError as error:
                found = None
                problems.append(f"the class of a box: {error}")
            labels.append(-1 if found is None else found)
        box_error = "; ".join(filter(None, problems)) or None
        box_labels = torch.tensor(labels, dtype=torch.long)
        return {**sample, "label": label, "box_labels": box_labels, "box_error": box_error}

    def _original(self, image: Image.Image) -> Original:
        scale = min(1.0, ORIGINAL_SIZE / max(image.size))
        reduced = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        x, y = reduced.width / image.width, reduced.height / image.height
        left, top, right, bottom = self.preprocess.view(*image.size)
        return Original(np.array(reduced), (left * x, top * y, right * x, bottom * y))


def failed(path: str, error: str) -> Failure:
    """What stands for an image that could not be read."""
    return {"failed": (printable(path), error)}


def collate(samples: Sequence[Sample | Failure]) -> Batch:
    """Samples -> batch, of the N that did not fail and of those that did."""
    good = [sample for sample in samples if "failed" not in sample]
    # By numpy: PyTorch would start threads of its own in the thread that asks.
    images = torch.from_numpy(np.stack([sample["image"].numpy() for sample in good])) if good else NO_IMAGES
    return {
        "path": [sample["path"] for sample in good],
        "boxes": torch.cat([NO_BOXES.boxes, *(sample["boxes"] for sample in good)]),
        "box_labels": torch.cat([NO_LABELS, *(sample["box_labels"] for sample in good)]),
        "n_boxes": torch.tensor([len(sample["boxes"]) for sample in good], dtype=torch.long),
        "box_error": [sample["box_error"] for sample in good],
        "file_columns": [sample["file_columns"] for sample in good],
        "original": [sample["original"] for sample in good],
        "image": images,
        "label": torch.tensor([sample["label"] for sample in good], dtype=torch.long),
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.long),
        "failed": [sample["failed"] for sample in samples if "failed" in sample],
    }
