"""Folders of images, labelled by the names of the folders that they lie in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa

from datamodules.errors import DataError
from datamodules.reading.samples import Failure, Sample, SampleReader
from datamodules.sources.counted import CountedListing, NumberedImages
from datamodules.sources.finding import find_images
from datamodules.sources.wishes import NO_WISHES, Wishes

_SIZES = 1000


@dataclass(frozen=True)
class FolderListing(CountedListing):
    """The images of a folder.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.
    """

    key: ClassVar[bytes] = b"root"

    @classmethod
    def lies_at(cls, root: Path) -> bool:
        return True

    @classmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> FolderListing:
        return list_folder(root, class_names)

    @classmethod
    def wished_at(cls, root: Path, class_names: Sequence[str] | None, wishes: Wishes) -> FolderListing:
        return list_folder(root, class_names, wishes)

    def dataset(self, reader: SampleReader) -> ImageDataset:
        return ImageDataset(self, reader)

    def fingerprint(self) -> dict[str, Any]:
        """How many images, a hash of paths and labels, and one of sizes.

        The sizes are those of a thousand files, spread over all: files that were written anew under their old names
        are noticed, and a file system with a million of them is not asked about each.
        """
        some = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SIZES)).astype(int))
        sizes = json.dumps([_size(self.root / self.path(k)) for k in some.tolist()])
        return {**self.names_fingerprint(), "sizes_sha256": hashlib.sha256(sizes.encode()).hexdigest()}

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


class ImageDataset(NumberedImages):
    """The images of a folder, each decoded when it is asked for."""

    def __getitem__(self, index: int) -> Sample | Failure:
        path = self.listing.path(index)
        return self.reader.read(self.listing.root / path, path, int(self.listing.labels[index]), index)


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
    done = np.zeros(len(found.paths), bool)
    return FolderListing(root, found.paths, found.labels, done, notes=tuple(found.notes)).part(wishes.subset)
