"""Packs a folder of images into decoded shards: each is decoded once, and then read as fast as memory is copied."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from datamodules.errors import DataError
from datamodules.reading.annotations import find_annotation
from datamodules.reading.decoding import Preprocess
from datamodules.reading.samples import Failure, SampleReader, Seen, failed, printable
from datamodules.reading.surviving_loader import FallibleDataset, SurvivingLoader
from datamodules.reading.workers import default_workers
from datamodules.sources.boxes import names_of_boxes
from datamodules.sources.decoded_files import SUFFIX, Making, Shard
from datamodules.sources.folder import FolderListing
from datamodules.sources.label_files import LabelFile
from datamodules.sources.packing import Packing
from datamodules.writing import written_whole

ORIGINALS = 64
"""Of so many images, the first ones, the original goes along for its figure; others are shown as they are packed."""

_BATCH = 16

T = TypeVar("T")


def pack_decoded(
    root: str | Path,
    out: str | Path,
    preprocess: Preprocess,
    images_per_shard: int = 1000,
    boxes: str | Path | None = None,
    track: Callable[[range], Iterable[int]] = iter,
    labels: LabelFile | None = None,
    exif_orientation: bool = False,
    num_workers: int | None = None,
) -> int:
    """Writes the images of a folder as a network sees them, in the order of the listing, into ``*.decoded.arrow``.

    What a batch of the folder holds stands there, but for the labels of images and boxes: instead of these their
    classes' names, so that networks of other classes can read them too. An image that cannot be decoded is a row that
    says so. The same folder gives the same shards, to the bit.

    Args:
        root: Folder of class folders, or of images.
        out: Folder to write; it appears when all is written.
        preprocess: What the network sees of an image. Networks that see something else cannot read the shards.
        images_per_shard: Images in a shard, at least 1; the last one may have fewer. A shard is made in memory.
        boxes: Folder of box annotations.
        track: Wraps the numbers of the shards, to show how far it is.
        labels: A file that says the class of each image.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
        num_workers: Processes that decode images; 0 = this one, None = as many as there are CPUs, at most 8.

    Returns:
        The number of images.

    Raises:
        DataError: If an option or the folder cannot be used, ``out`` holds something, or the disk is too small.
    """
    packing = Packing.of(root, out, images_per_shard, boxes, labels)
    making = Making.by(preprocess, exif_orientation)
    _refuse_small_disk(packing, making)
    reader = SampleReader(preprocess, packing.boxes, (), ORIGINALS, exif_orientation)
    images = SeenImages(packing.listing, reader)
    workers = default_workers() if num_workers is None else num_workers
    loader = SurvivingLoader(
        images, np.arange(len(images)), _BATCH, workers, collate_fn=_as_they_are, sample_bytes=reader.sample_bytes
    )
    seen = (image for batch in loader for image in batch)
    with written_whole(packing.out) as aside:
        aside.mkdir()
        for number in track(range(packing.n_shards)):
            shard = _filled(packing, making, packing.numbers(number), seen)
            shard.write(aside / f"{number:05d}{SUFFIX}", number, packing.n_shards)
    return len(images)


def _filled(packing: Packing, making: Making, numbers: range, images: Iterator[Seen | Failure]) -> Shard:
    shard = Shard(making, len(numbers))
    for number, seen in zip(numbers, images):
        path = packing.listing.path(number)
        if "failed" in seen:
            names = names_of_boxes(find_annotation(packing.boxes, path))
        else:
            names = None if seen["boxes"] is None else seen["boxes"].names
        shard.add(seen, packing.classes.get(printable(path)), names)
    return shard


def _refuse_small_disk(packing: Packing, making: Making) -> None:
    there = next(folder for folder in packing.out.absolute().parents if folder.exists())
    needed, free = len(packing.listing) * making.n_bytes, shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"{len(packing.listing):,} images of {making.n_bytes:,} bytes take {needed / 1e9:,.1f} GB, and {there} has "
            f"{free / 1e9:,.1f} GB left."
        )


class SeenImages(FallibleDataset[Seen | Failure]):
    """The images of a folder as a network sees them."""

    def __init__(self, listing: FolderListing, reader: SampleReader) -> None:
        self.listing = listing
        self.reader = reader

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> Seen | Failure:
        path = self.listing.path(index)
        return self.reader.look(self.listing.root / path, path, index)

    def failure(self, index: int, error: str) -> Failure:
        return failed(self.listing.path(index), error)


def _as_they_are(samples: Sequence[T]) -> list[T]:
    return list(samples)
