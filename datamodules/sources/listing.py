"""What every kind of source has in common: a listing, made once and read by all processes, that says how to read on."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypedDict

import numpy as np
import pyarrow as pa

from datamodules.batch import Batch
from datamodules.errors import DataError
from datamodules.reading.samples import SampleReader
from datamodules.sources.wishes import Wishes
from datamodules.writing import written_whole

logger = logging.getLogger(__name__)


class Share(NamedTuple):
    """Which part of the images is a process's own.

    Attributes:
        rank: The number of the process ...
        world: ... among so many.
        limit: Of its images, if they are counted, it reads those of the first so many batches; see
            :func:`first_batches`.
    """

    rank: int = 0
    world: int = 1
    limit: float = 1.0


class LoaderOptions(TypedDict):
    """What a loader has to be told beside what it loads, as torch's DataLoader calls it."""

    batch_size: int
    num_workers: int
    pin_memory: bool


class Listing(ABC):
    """The images at a root, as they were found, and how they are read: the one thing that knows how images may lie.

    A new kind is a subclass in a file of its own, and a name in :data:`datamodules.sources.kinds.KINDS`.

    Attributes:
        key: What an Arrow file of this kind has in its metadata, and that of no other kind has.
        is_counted: Whether it is known how many images there are before they are read.
        may_hold_boxes: Whether boxes may lie with the images, which is not known before these are read.
        labels: Index of the class of each image that was looked at, long ``(N,)``; -1 = unlabelled.
        file: Where :meth:`save` wrote the listing. Such a one is mapped into memory, which all processes share, and
            is pickled as its file's name.
        notes: What was left out or had to be decided when it was made, in sentences without their full stops.
    """

    key: ClassVar[bytes]
    is_counted: ClassVar[bool]
    may_hold_boxes: ClassVar[bool] = False
    labels: np.ndarray
    file: Path | None
    notes: tuple[str, ...] = ()

    @classmethod
    @abstractmethod
    def lies_at(cls, root: Path) -> bool:
        """Whether the images at ``root`` lie as this kind has them."""

    @classmethod
    @abstractmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> Listing:
        """The listing of what lies at ``root``, labelled by the names of the network's classes.

        Raises:
            DataError: If it cannot be used.
        """

    @classmethod
    def wished_at(cls, root: Path, class_names: Sequence[str] | None, wishes: Wishes) -> Listing:
        """The same as a person asked for it. A kind that knows its images before it reads them may do more.

        Raises:
            DataError: If it cannot be used, or cannot meet the wishes.
        """
        cls.refuse_labels(root, wishes)
        if not wishes.subset.is_all:
            raise DataError(
                f"{root} holds no folder of images: data.include, data.limit_per_class and data.sample choose among "
                "images that are known before they are read."
            )
        return cls.found_at(root, class_names)

    @staticmethod
    def refuse_labels(root: Path, wishes: Wishes) -> None:
        """Asks that no label file is wished for where labels lie with the images."""
        if wishes.labels is not None:
            raise DataError(
                f"{root} holds no folder of images, whose labels data.labels could say. Shards hold those of their "
                "samples (.cls); pack_shards.py --data.labels writes them there."
            )

    def check(self, reader: SampleReader) -> None:  # noqa: B027
        """Whether these images can be read as a reader is to give them.

        Raises:
            DataError: If they cannot.
        """

    def tell(self, root: Path) -> None:
        """Says what was left out or had to be decided, if anything was."""
        if self.notes:
            logger.warning("%s: %s.", root, "; ".join(self.notes))

    @abstractmethod
    def without(self, done: Collection[str]) -> Self:
        """The listing with the images of these paths, as rows hold them, marked as done: no loader reads them."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What tells this listing from another: counts and hashes."""

    @abstractmethod
    def loader(self, reader: SampleReader, share: Share, options: LoaderOptions) -> Iterable[Batch]:
        """The batches of a process's share, without what is done; neither repeated nor padded.

        They outlive worker processes that are killed.
        """

    @abstractmethod
    def to_table(self) -> pa.Table:
        """All there is to the listing, with :attr:`key` in its metadata."""

    @classmethod
    @abstractmethod
    def from_table(cls, table: pa.Table, file: Path) -> Self:
        """The listing of which :meth:`to_table` gave this table, read from ``file``."""

    def save(self, file: Path) -> None:
        """Writes an Arrow file, which is either whole or not there."""
        table = self.to_table()
        with (
            written_whole(file) as aside,
            pa.OSFile(str(aside), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as writer,
        ):
            # In one piece: several could not be mapped as one array.
            writer.write_table(table.combine_chunks())

    @classmethod
    def load(cls, file: Path) -> Self:
        """Maps what :meth:`save` wrote into memory: it is read as it is needed, and shared between processes."""
        return cls.from_table(read_arrow(file), file)

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.file is None else (type(self).load, (self.file,))


def read_arrow(file: Path) -> pa.Table:
    """Maps a table into memory."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def first_batches(n: int, batch_size: int, limit: float) -> int:
    """How many of ``n`` samples lie in the first ``limit`` batches: a whole number of them, or a share of all.

    Example:
        >>> first_batches(10, 4, 2), first_batches(10, 4, 5), first_batches(10, 4, 0.5), first_batches(10, 4, 1.0)
        (8, 10, 4, 10)
    """
    n_batches = -(-n // batch_size)
    return min(n, batch_size * (limit if isinstance(limit, int) else int(n_batches * limit)))
