"""Folders of images, labelled by the names of the folders that they lie in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from datamodules.batch import Batch
from datamodules.errors import DataError
from datamodules.reading.samples import Failure, Sample, SampleReader, collate, failed, printable
from datamodules.reading.surviving_loader import FallibleDataset, SurvivingLoader
from datamodules.sources.files import each_name
from datamodules.sources.finding import find_images, round_the_classes
from datamodules.sources.listing import Listing, LoaderOptions, Share, first_batches
from datamodules.sources.wishes import NO_WISHES, Wishes

_SIZES = 1000


@dataclass(frozen=True)
class FolderListing(Listing):
    """The images of a folder: paths relative to ``root`` (as the file system's bytes) and labels, -1 = unlabelled.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.

    Attributes:
        done: Which images have their rows already, bool ``(N,)``.
        notes: What was left out or had to be decided when it was made, in sentences without their full stops.
    """

    key: ClassVar[bytes] = b"root"
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

    @classmethod
    def lies_at(cls, root: Path) -> bool:
        return True

    @classmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> FolderListing:
        return list_folder(root, class_names)

    @classmethod
    def wished_at(cls, root: Path, class_names: Sequence[str] | None, wishes: Wishes) -> FolderListing:
        return list_folder(root, class_names, wishes)

    def without(self, done: Collection[str]) -> Self:
        if not done:
            return self
        is_done = (printable(path) in done for path in each_name(self.paths))
        return replace(self, done=np.fromiter(is_done, bool, len(self)))

    def select(self, mask: np.ndarray) -> Self:
        """The listing of the images where ``mask``, bool ``(N,)``, is true."""
        return replace(
            self, paths=self.paths.filter(pa.array(mask)), labels=self.labels[mask], done=self.done[mask], file=None
        )

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
            ImageDataset(self, reader),
            indices,
            collate_fn=collate,
            rank=share.rank,
            sample_bytes=reader.sample_bytes,
            **options,
        )

    def fingerprint(self) -> dict[str, Any]:
        """How many images, a hash of paths and labels, and one of sizes.

        The sizes are those of a thousand files, spread over all: files that were written anew under their old names
        are noticed, and a file system with a million of them is not asked about each.
        """
        sha256 = hashlib.sha256(self.labels.astype(np.int64).tobytes())
        for name in each_name(self.paths):
            sha256.update(name + b"\0")
        some = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SIZES)).astype(int))
        sizes = json.dumps([_size(self.root / self.path(k)) for k in some.tolist()])
        return {
            "n_images": len(self),
            "sha256": sha256.hexdigest(),
            "sizes_sha256": hashlib.sha256(sizes.encode()).hexdigest(),
        }

    def to_table(self) -> pa.Table:
        columns = {"path": self.paths, "label": self.labels, "done": self.done}
        return pa.table(columns, metadata={self.key: os.fsencode(self.root)})

    @classmethod
    def from_table(cls, table: pa.Table, file: Path) -> Self:
        root = Path(os.fsdecode(table.schema.metadata[cls.key]))
        columns = [table[name].combine_chunks() for name in ("path", "label", "done")]
        return cls(root, columns[0], columns[1].to_numpy(), columns[2].to_numpy(zero_copy_only=False), file)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link is listed too
        return None


class ImageDataset(FallibleDataset[Sample | Failure]):
    """The images of a listing, each as a sample."""

    def __init__(self, listing: FolderListing, reader: SampleReader) -> None:
        self.listing = listing
        self.reader = reader

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> Sample | Failure:
        path = self.listing.path(index)
        return self.reader.read(self.listing.root / path, path, int(self.listing.labels[index]), index)

    def failure(self, index: int, error: str) -> Failure:
        return failed(self.listing.path(index), error)


def list_folder(
    root: str | Path, class_names: Sequence[str] | None = None, wishes: Wishes = NO_WISHES
) -> FolderListing:
    """Lists the images of a folder, to any depth; see :func:`~datamodules.sources.finding.find_images`.

    Args:
        root: The folder.
        class_names: Names of the network's classes. None numbers the classes in sorted order.
        wishes: Where labels come from beside the folders, and which of the images are wanted.

    Raises:
        DataError: If the folder does not exist, holds no images, holds images beside class folders, or a class is none
            of the network; or if the wishes cannot be met.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dog", "cat"):
        ...         Path(folder, name).mkdir()
        ...         Path(folder, name, "a.jpg").touch()
        ...     listing = list_folder(folder, ["dog", "bird", "cat"])
        >>> [(listing.path(k), int(listing.labels[k])) for k in range(2)]
        [('cat/a.jpg', 2), ('dog/a.jpg', 0)]
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The image folder {root} {'is not a folder' if root.exists() else 'does not exist'}.")
    found = find_images(root, class_names, wishes.labels, wishes.boxes)
    paths, labels = found.paths, found.labels
    if not wishes.subset.is_all:
        names = [printable(path) for path in each_name(paths)]
        wanted = np.flatnonzero(wishes.subset.mask(names, labels))
        found.notes.extend(wishes.subset.notes(names, labels))
        wanted = wanted[round_the_classes(labels[wanted])]
        paths, labels = paths.take(pa.array(wanted)), labels[wanted]
    return FolderListing(root, paths, labels, np.zeros(len(paths), bool), notes=tuple(found.notes))
