"""What a batch holds and what its labels mean: the contract between the two packages.

It is all that ``lightning_modules`` imports of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError  # noqa: F401  for lightning_modules
from datamodules.errors import DataError, some  # noqa: F401

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
"""By what images can be resized, as torchvision calls it."""

CROPS = ("center", "center_floor", "squash", "squash_floor")
"""How an image is brought to a square, see :class:`~datamodules.preprocess.Preprocess`."""

LONGEST_SIDE = 10_000
"""Pixels: a size that somebody can mean, of what a network is shown; beyond it is a slip of the keyboard."""

UPRIGHT = 1
"""The EXIF orientation of an image that lies in its file as it is meant to be seen."""

FILE_COLUMNS = {"exif_orientation": pa.int64(), "note": pa.string()}
"""What the rows hold of an image's file; :meth:`datamodules.images.decode.Decoded.columns` gives the values.

``exif_orientation``, 2 to 8, is what the file asks for and was not given; 1 = nothing. ``note`` says what the file
holds that is not seen as its author may expect; null = nothing.
"""


class Original(NamedTuple):
    """An image before resize and crop, for figures: what the user recognizes.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, reduced to at most 1,024 pixels a side. An array, since tensors of a batch are
            moved to the GPU, where figures have no use for them.
        view: What the network saw of it: (left, top, right, bottom) in its pixels.
    """

    pixels: np.ndarray
    view: tuple[float, float, float, float]


class Batch(TypedDict):
    """A batch of N images that could be read, and of those that could not.

    It holds the same few tensors however many images and boxes there are. :func:`boxes_of` gives the boxes of one
    image, :func:`image_of_each_box` the image of each box.

    Attributes:
        image: Pixels ``(N, 3, H, W)``. Loaders give bytes, uint8, a quarter of what is to be moved; LightningModules
            get float32 in [0, 1], made of them on the device. Whoever reads a loader without a Trainer calls
            :func:`with_pixels`.
        label: Index of the class, long ``(N,)``; -1 = unlabelled.
        index: Number of the image in the data set, long ``(N,)``; the first ones get figures.
        path: What the rows call each image, relative to the root; N of valid Unicode.
        boxes: The boxes of all images, those of the first image first, float32 ``(B, 4)``: left, top, right, bottom in
            pixels of ``image``.
        box_labels: The class of each box, long ``(B,)``; -1 = no class of the network.
        n_boxes: How many of the boxes are of each image, long ``(N,)``.
        box_error: Of each image what is wrong with its annotation; None = nothing.
        file_columns: Of each image what its rows hold of its file, by the names of :data:`FILE_COLUMNS`.
        original: Of each of the first images the :class:`Original`, for its figure; None for all others.
        failed: (path, error) of each image that could not be read; not of length N.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    path: list[str]
    boxes: Tensor
    box_labels: Tensor
    n_boxes: Tensor
    box_error: list[str | None]
    file_columns: list[dict[str, Any]]
    original: list[Original | None]
    failed: list[tuple[str, str]]


def boxes_of(batch: Batch, i: int) -> tuple[Tensor, Tensor]:
    """The boxes ``(K, 4)`` of the image of number ``i`` in a batch, and their classes ``(K,)``.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 1.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]])
        >>> batch = {"boxes": boxes, "box_labels": torch.tensor([7, 8, 9]), "n_boxes": torch.tensor([1, 0, 2])}
        >>> boxes_of(batch, 2)[1].tolist(), boxes_of(batch, 1)[1].tolist()
        ([8, 9], [])
    """
    first = int(batch["n_boxes"][:i].sum())
    end = first + int(batch["n_boxes"][i])
    return batch["boxes"][first:end], batch["box_labels"][first:end]


def image_of_each_box(batch: Batch) -> Tensor:
    """Of which image each of a batch's boxes is, by its number in the batch: long ``(B,)``, on the batch's device.

    Example:
        >>> boxes = torch.zeros(3, 4)
        >>> image_of_each_box({"boxes": boxes, "n_boxes": torch.tensor([1, 0, 2])}).tolist()
        [0, 2, 2]
    """
    n_boxes = batch["n_boxes"]
    images = torch.arange(len(n_boxes), device=n_boxes.device)
    # Without the size of what comes out, a GPU would be waited for.
    return images.repeat_interleave(n_boxes, output_size=len(batch["boxes"]))


def pixels_of(images: Tensor) -> Tensor:
    """Bytes, uint8 of any shape, as float32 in [0, 1], equal to torchvision's ``ToTensor`` to the bit on any device.

    What is floating-point already stays as it is.

    Raises:
        DataError: If they are neither.

    Example:
        >>> pixels_of(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    if images.is_floating_point():
        return images
    if images.dtype != torch.uint8:
        raise DataError(f"Images should be uint8, or floating-point in [0, 1], got {images.dtype}.")
    # Not by a plain number: CUDA multiplies by its reciprocal, which rounds otherwise.
    return images.to(torch.float32).div_(torch.full((), 255.0, device=images.device))


def with_pixels(batch: Batch) -> Batch:
    """The batch with its images as float32 in [0, 1]; see :func:`pixels_of`."""
    return {**batch, "image": pixels_of(batch["image"])}


class UnitBatch(TypedDict):
    """A batch of N images to be made by activation maximization: a few numbers, which stay on the host.

    Attributes:
        target: Index of the class or channel, long ``(N,)``.
        layer: The layer whose channel it is; None = a class.
        name: The class's name, or ``layer:channel``.
        seed: Of each image, long ``(N,)``.
        path: File name of each image, which is also what the rows call it.
        index: Number of the image in the run, long ``(N,)``.
    """

    target: Tensor
    layer: list[str | None]
    name: list[str]
    seed: Tensor
    path: list[str]
    index: Tensor


class Photos(Protocol):
    """Photos that a network is shown beside those that it is run for: numbered, and read as often as need be."""

    def fingerprint(self) -> dict[str, Any]:
        """What tells them from others; can be written as JSON."""

    def batches(self) -> Iterable[Batch]:
        """All of them, in order; ``index`` has their numbers."""

    def pixels(self, index: int) -> np.ndarray:
        """What a network sees of one of them, uint8 ``(H, W, 3)``."""


class EvaluationData(Protocol):
    """What a run that can be continued asks of its data module, beside all that Lightning does.

    Attributes:
        notes: What was left out of the images or had to be decided, in sentences without their full stops.
    """

    notes: Sequence[str]

    def begin_run(self, run: Path, read_done: Callable[[], set[str]], limit: float) -> bool:
        """Prepares for a run that may have begun earlier; called before anything else.

        Args:
            run: Its folder, where the first process of all may write the list of images for all others.
            read_done: Gives the paths, as rows hold them, of images that testing leaves out.
            limit: Lightning's ``limit_test_batches``: a whole number of batches, or a float, a share of them.

        Returns:
            Whether the data module obeys the limit itself; it then counts what has rows already too.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be tested from others; can be written as JSON."""

    def end_early(self) -> None:
        """A signal ends this process of the run, in order: nothing that is being read is to blame."""

    @property
    def n_listed(self) -> int | None:
        """How many images testing is of, also those that are done or that a limit leaves out; None = not counted."""
