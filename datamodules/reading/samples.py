"""From one image, wherever it lies, to one sample; from samples to a batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.batch import UPRIGHT, Batch, Original
from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.reading.annotations import find_annotation
from datamodules.reading.decoding import DecodingError, Preprocess, read_image
from datamodules.reading.seen_boxes import SeenBoxes, no_boxes, seen_boxes

NO_IMAGES = torch.zeros(0, 3, 1, 1, dtype=torch.uint8)
"""What a batch of failures alone holds."""
ORIGINAL_SIZE = 1024
"""Originals that travel with a batch are reduced to at most this many pixels a side: they are for figures."""

MORE_PER_SAMPLE = 256
"""Bytes that a sample takes in a batch beside its pixels, if it has a few boxes."""


@final
class Sample(TypedDict):
    """One image that could be read: what a :class:`~datamodules.batch.Batch` holds N of, under the same names.

    Its K boxes are ``(K, 4)``, their classes ``(K,)``.
    """

    image: Tensor
    label: int
    index: int
    path: str
    boxes: Tensor
    box_labels: Tensor
    box_error: str | None
    exif_orientation: int
    doubt: str | None
    original: Original | None


@final
class Seen(TypedDict):
    """One image as a network sees it, before anybody knows the network's classes.

    Attributes:
        image: uint8 ``(3, H, W)``.
        path: How the rows call it.
        size: Width and height in pixels of the image before resize and crop.
        orientation: The EXIF orientation that its file asks for, 1 to 8 ...
        is_turned: ... and whether it was turned so.
        doubt: Why its pixels may be others than meant; None = there is no reason.
        boxes: None = it has no annotation.
        original: For its figure; None = it gets none.
    """

    image: Tensor
    path: str
    size: tuple[int, int]
    orientation: int
    is_turned: bool
    doubt: str | None
    boxes: SeenBoxes | None
    original: Original | None


@final
class Failure(TypedDict):
    """One image that could not be read: its path, and the error."""

    failed: tuple[str, str]


class SampleReader:
    """Makes samples of images.

    Args:
        transform: RGB image -> uint8 ``(3, H, W)``, or a :class:`Preprocess`, of which the levels are taken. Boxes and
            originals need the latter, which knows where an image's pixels go.
        boxes: Folder of ILSVRC's XML annotations, or None.
        class_names: Names of the network's classes, to label the boxes by.
        n_originals: For the first so many images, the sample carries the original pixels too.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
    """

    def __init__(
        self,
        transform: Preprocess | Callable[[Image.Image], Tensor],
        boxes: Path | None = None,
        class_names: Sequence[str] | None = None,
        n_originals: int = 0,
        exif_orientation: bool = False,
    ) -> None:
        self.transform = transform
        self.levels_of = transform.levels if isinstance(transform, Preprocess) else transform
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
        seen = self.look(source, path, index, annotation)
        return seen if "failed" in seen else self.sample(seen, label, index)

    def look(
        self, source: str | os.PathLike[str] | bytes, path: str, index: int, annotation: bytes | None = None
    ) -> Seen | Failure:
        """What a network sees of an image, whatever its classes are; see :meth:`read`."""
        try:
            decoded = read_image(source, self.exif_orientation, path)
        except DecodingError as error:
            return failed(path, str(error))
        image = decoded.image
        file = Path(f"{path}.xml") if annotation is not None else find_annotation(self.boxes, path)
        how = image.size, decoded.orientation, decoded.is_turned
        return {
            "image": self.levels_of(image),
            "path": printable(path),
            "size": image.size,
            "orientation": decoded.orientation,
            "is_turned": decoded.is_turned,
            "doubt": decoded.doubt,
            "boxes": None if file is None else seen_boxes(self.preprocess, file, annotation, *how),
            "original": self._original(image) if index < self.n_originals else None,
        }

    def sample(self, seen: Seen, label: int, index: int) -> Sample:
        """The sample of what is seen, its boxes labelled by the network's classes."""
        boxes, names, error = seen["boxes"] or no_boxes()
        labels, ambiguous = self._labels(names if len(boxes) else ())
        return {
            "image": seen["image"],
            "label": label,
            "index": index,
            "path": seen["path"],
            "boxes": boxes,
            "box_labels": torch.tensor(labels, dtype=torch.long),
            "box_error": "; ".join([*([error] if error else []), *ambiguous]) or None,
            "exif_orientation": UPRIGHT if seen["is_turned"] else seen["orientation"],
            "doubt": seen["doubt"],
            "original": seen["original"],
        }

    def sample_bytes(self) -> int:
        """How many bytes a sample takes in a batch, if it has a few boxes: the pixels of all are as many."""
        with torch.random.fork_rng(devices=[]):
            return self.levels_of(Image.new("RGB", (8, 8))).nbytes + MORE_PER_SAMPLE

    def _labels(self, names: Sequence[str]) -> tuple[list[int], list[str]]:
        """The classes that boxes are named after, -1 = none of the network, and what is wrong with names."""
        labels, problems = [], []
        for name in names:
            try:
                label = self.classes.named(name)
            except AmbiguousClassError as error:
                label = None
                problems.append(f"the class of a box: {error}")
            labels.append(-1 if label is None else label)
        return labels, problems

    def _original(self, image: Image.Image) -> Original:
        scale = min(1.0, ORIGINAL_SIZE / max(image.size))
        reduced = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        x, y = reduced.width / image.width, reduced.height / image.height
        left, top, right, bottom = self.preprocess.view(*image.size)
        return Original(np.array(reduced), (left * x, top * y, right * x, bottom * y))

    @property
    def preprocess(self) -> Preprocess:
        """What the boxes and originals go by."""
        assert isinstance(self.transform, Preprocess), "random crops have neither boxes nor originals"
        return self.transform


def printable(path: str | bytes) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 are written as escapes (``\\xff``)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def failed(path: str, error: str) -> Failure:
    """What stands for an image that could not be read."""
    return {"failed": (printable(path), error)}


def collate(samples: Sequence[Sample | Failure]) -> Batch:
    """Samples -> batch, of the N that did not fail and of those that did."""
    good = [sample for sample in samples if "failed" not in sample]
    return {
        "path": [sample["path"] for sample in good],
        "boxes": torch.cat([torch.zeros(0, 4), *(sample["boxes"] for sample in good)]),
        "box_labels": torch.cat([torch.zeros(0, dtype=torch.long), *(sample["box_labels"] for sample in good)]),
        "n_boxes": torch.tensor([len(sample["boxes"]) for sample in good], dtype=torch.long),
        "box_error": [sample["box_error"] for sample in good],
        "exif_orientation": [sample["exif_orientation"] for sample in good],
        "doubt": [sample["doubt"] for sample in good],
        "original": [sample["original"] for sample in good],
        "image": torch.stack([sample["image"] for sample in good]) if good else NO_IMAGES,
        "label": torch.tensor([sample["label"] for sample in good], dtype=torch.long),
        "index": torch.tensor([sample["index"] for sample in good], dtype=torch.long),
        "failed": [sample["failed"] for sample in samples if "failed" in sample],
    }
