"""Images that are known, each by its path, before they are read: all can be counted, chosen from, and shared out."""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from datamodules.batch import Batch
from datamodules.reading.samples import Failure, Sample, SampleReader, collate, failed, printable
from datamodules.reading.surviving_loader import FallibleDataset, SurvivingLoader
from datamodules.sources.files import each_name
from datamodules.sources.finding import round_the_classes
from datamodules.sources.listing import Listing, LoaderOptions, Share, first_batches
from datamodules.sources.subsets import Subset


@dataclass(frozen=True)
class CountedListing(Listing):
    """N images: paths relative to ``root`` (as the file system's bytes) and labels, -1 = unlabelled.

    Attributes:
        done: Which images have their rows already, bool ``(N,)``.
        notes: What was left out or had to be decided when it was made, in sentences without their full stops.
    """

    is_counted: ClassVar[bool] = True

    root: Path
    paths: pa.Array
    labels: np.ndarray
    done: np.ndarray
    file: Path | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        return os.fsdecode(self.paths[index].as_py())

    @abstractmethod
    def dataset(self, reader: SampleReader) -> NumberedImages:
        """The images as samples, by their numbers."""

    def without(self, done: Collection[str]) -> Self:
        if not done:
            return self
        is_done = (printable(path) in done for path in each_name(self.paths))
        return replace(self, done=np.fromiter(is_done, bool, len(self)))

    def take(self, indices: np.ndarray) -> Self:
        """The listing of the images of these numbers, in this order."""
        return replace(
            self,
            paths=self.paths.take(pa.array(indices)),
            labels=self.labels[indices],
            done=self.done[indices],
            file=None,
        )

    def part(self, subset: Subset) -> Self:
        """The listing of the images of a subset, in an order that goes round the classes, and with its notes."""
        if subset.is_all:
            return self
        names = [printable(path) for path in each_name(self.paths)]
        wanted = np.flatnonzero(subset.mask(names, self.labels))
        taken = self.take(wanted[round_the_classes(self.labels[wanted])])
        return replace(taken, notes=(*self.notes, *subset.notes(names, self.labels)))

    def todo(self, rank: int = 0, world: int = 1, batch_size: int = 1, limit: float = 1.0) -> np.ndarray:
        """The indices of the images that have no rows yet, of the share of one process among ``world``.

        Of the share, only the first ``limit`` batches are taken into account, see :func:`first_batches`. What is done
        is left out of each share, not of what is shared out: so a continued run has the same batches, to the last bit,
        as one that was never interrupted.
        """
        mine = np.arange(rank, len(self), world)
        mine = mine[: first_batches(len(mine), batch_size, limit)]
        return mine[~self.done[mine]]

    def loader(
        self, reader: SampleReader, share: Share, options: LoaderOptions
    ) -> SurvivingLoader[Sample | Failure, Batch]:
        indices = self.todo(share.rank, share.world, options["batch_size"], share.limit)
        return SurvivingLoader(
            self.dataset(reader),
            indices,
            collate_fn=collate,
            rank=share.rank,
            sample_bytes=reader.sample_bytes,
            **options,
        )

    def names_fingerprint(self) -> dict[str, Any]:
        """How many images there are, and a hash of their paths and labels."""
        sha256 = hashlib.sha256(self.labels.astype(np.int64).tobytes())
        for name in each_name(self.paths):
            sha256.update(name + b"\0")
        return {"n_images": len(self), "sha256": sha256.hexdigest()}


class NumberedImages(FallibleDataset[Sample | Failure]):
    """The images of a listing, each as a sample."""

    def __init__(self, listing: CountedListing, reader: SampleReader) -> None:
        self.listing = listing
        self.reader = reader

    def __len__(self) -> int:
        return len(self.listing)

    @abstractmethod
    def __getitem__(self, index: int) -> Sample | Failure:
        """The sample of this number."""

    def failure(self, index: int, error: str) -> Failure:
        return failed(self.listing.path(index), error)
