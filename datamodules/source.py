"""What every source of images is: a table of paths, labels and places, made once, and a way to read the i-th image."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.errors import DataError, UnreachableError, printable
from datamodules.labels import LabelFile
from datamodules.reader import Failure, Sample, SampleReader, failed
from datamodules.subset import Subset
from datamodules.writing import written_whole

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CHUNK = 1 << 12


@dataclass(frozen=True)
class ListingOptions:
    """What decides, beside the root, which images there are and how they are labelled.

    Args:
        class_names: Names of the network's classes. None numbers the class folders, or the classes of the label file,
            in sorted order.
        labels: What gives the class of each image. None = what lies with it, or its folder.
        boxes: Folder of box annotations, which label what nothing else does.
        subset: Which of the images are wanted.
        earlier: Where an earlier run of the same kind may have saved its listing.
    """

    class_names: Sequence[str] | None = None
    labels: LabelFile | None = None
    boxes: Path | None = None
    subset: Subset = field(default_factory=Subset)
    earlier: Path | None = None


@dataclass(frozen=True)
class Source(ABC):
    """N images that lie in one way, and how one of them is read. Several threads may read at once.

    A new kind is a subclass in a file of its own, and its name in :data:`datamodules.modules.KINDS`. It has four
    members: ``kind``, :meth:`matches`, :meth:`list_images` and :meth:`read_one`.

    Attributes:
        kind: What it is called in the file that it is saved to.
        in_order: Whether a part of the images is read in their order, not round the classes.
        table: A row for each image: ``path`` as the file system's bytes, ``label`` (-1 = unlabelled), ``done`` (it has
            its rows already), ``error`` (why it cannot be read, known beforehand; null = nothing is known); and what
            the kind needs to find it.
        facts: What the kind has to know of all images, in terms of JSON.
        notes: What was left out or had to be decided, in sentences without their full stops.
        n_found: How many images there were before some were chosen.
        file: Where :meth:`save` wrote it. Such a one is mapped into memory, which all processes share, and is pickled
            as its file's name.
    """

    kind: ClassVar[str]
    in_order: ClassVar[bool] = False

    table: pa.Table
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    n_found: int = 0
    file: Path | None = None

    @classmethod
    @abstractmethod
    def matches(cls, root: Path | str) -> bool:
        """Whether the images at ``root`` lie as this kind has them."""

    @classmethod
    @abstractmethod
    def list_images(cls, root: Path | str, options: ListingOptions) -> Self:
        """All images at ``root``; :meth:`make` helps.

        Raises:
            DataError: If it cannot be used.
        """

    @abstractmethod
    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        """Reads the i-th image. Whatever it raises becomes a failure."""

    def planned(self, indices: np.ndarray) -> Self:
        """The source that knows in which order its images will be read, long ``(N,)``, ascending."""
        return self

    def check(self, reader: SampleReader) -> None:  # noqa: B027
        """Raises a :class:`DataError` if these images cannot be read as a reader is to give them."""

    def content_fingerprint(self) -> dict[str, Any]:
        """What changes when the files change under their old names."""
        return {}

    @property
    def may_have_boxes(self) -> bool:
        """Whether boxes lie with the images."""
        return False

    @classmethod
    def open(cls, root: Path | str, options: ListingOptions) -> Self:
        """The images at ``root`` that are wanted.

        Raises:
            DataError: If there are none, or they cannot be used.
        """
        source = cls.list_images(root, options)
        return replace(source, n_found=len(source)).chosen(options.subset)

    @classmethod
    def make(
        cls,
        paths: pa.Array,
        labels: np.ndarray,
        facts: dict[str, Any],
        notes: Iterable[str] = (),
        errors: Mapping[int, str] | None = None,
        **columns: pa.Array | np.ndarray,
    ) -> Self:
        """A source of these images, none of which is done."""
        n = len(paths)
        known = {"path": paths, "label": labels, "done": np.zeros(n, bool), "error": pa.nulls(n, pa.string())}
        return cls(pa.table({**known, **columns}), facts, tuple(notes)).with_errors(errors or {})

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.file is None else (type(self).load, (self.file,))

    @cached_property
    def columns(self) -> dict[str, pa.Array]:
        return {name: self.table[name].combine_chunks() for name in self.table.column_names}

    @cached_property
    def labels(self) -> np.ndarray:
        """Index of the class of each image, long ``(N,)``; -1 = unlabelled."""
        return self.columns["label"].to_numpy()

    @cached_property
    def done(self) -> np.ndarray:
        """Which images have their rows already, bool ``(N,)``."""
        return self.columns["done"].to_numpy(zero_copy_only=False)

    def path(self, i: int) -> str:
        return path_at(self.columns["path"], i)

    def names(self) -> list[str]:
        """How the rows call the images."""
        return names_of(self.columns["path"]).to_pylist()

    def read(self, i: int, reader: SampleReader) -> Sample | Failure:
        """The i-th image as a sample, or why there is none."""
        error = self.columns["error"][i].as_py()
        if error is None:
            try:
                return self.read_one(i, reader)
            except UnreachableError:
                raise
            except OSError as raised:
                error = f"cannot be read: {raised.strerror or raised}"
            except Exception as raised:
                error = f"cannot be read: {type(raised).__name__}: {raised}"
        return failed(self.path(i), error)

    def without(self, done: Collection[str]) -> Self:
        """The source with the images of these paths, as rows hold them, marked as done: no loader reads them."""
        if not done:
            return self
        return self._with_column("done", pc.is_in(names_of(self.columns["path"]), pa.array([*done], pa.large_string())))

    def with_errors(self, errors: Mapping[int, str]) -> Self:
        """The source with what is known to be wrong with the images of these numbers."""
        if not errors:
            return self
        found = self.columns["error"].to_pylist()
        for i, error in errors.items():
            found[i] = error
        return self._with_column("error", pa.array(found, pa.string()))

    def _with_column(self, name: str, column: pa.Array) -> Self:
        place = self.table.column_names.index(name)
        return replace(self, table=self.table.set_column(place, name, column), file=None)

    def take(self, indices: np.ndarray) -> Self:
        """The source of the images of these numbers, in this order."""
        return replace(self, table=self.table.take(pa.array(indices)), file=None)

    def chosen(self, subset: Subset) -> Self:
        """The source of the images of a subset, in an order that goes round the classes, and with its notes."""
        if subset.is_all:
            return self
        names = self.names()
        wanted = np.flatnonzero(subset.mask(names, self.labels))
        taken = self.take(wanted if self.in_order else wanted[round_the_classes(self.labels[wanted])])
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

    def fingerprint(self) -> dict[str, Any]:
        """How many images there are, a hash of their paths and labels, and what the kind adds."""
        sha256 = hashlib.sha256(self.labels.astype(np.int64).tobytes())
        for start in range(0, len(self), _CHUNK):
            for name in self.columns["path"].slice(start, _CHUNK).to_pylist():
                sha256.update(name + b"\0")
        return {"n_images": len(self), "sha256": sha256.hexdigest(), **self.content_fingerprint()}

    def log_notes(self, root: Path | str) -> None:
        """Logs what was left out or had to be decided, if anything was."""
        if self.notes:
            logger.warning("%s: %s.", root, "; ".join(self.notes))

    def save(self, file: Path) -> None:
        """Writes an Arrow file, which is either whole or not there."""
        facts = json.dumps({"kind": self.kind, "facts": self.facts, "n_found": self.n_found})
        # In one piece: several could not be mapped as one array.
        table = self.table.combine_chunks().replace_schema_metadata({"source": facts})
        with written_whole(file) as aside, pa.ipc.new_file(str(aside), table.schema) as writer:
            writer.write_table(table)

    @classmethod
    def load(cls, file: Path) -> Self:
        """Maps what :meth:`save` wrote into memory: it is read as it is needed, and shared between processes."""
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        found = json.loads(table.schema.metadata[b"source"])
        kind = next(each for each in (cls, *cls.__subclasses__()) if getattr(each, "kind", "") == found["kind"])
        return kind(table, found["facts"], n_found=found["n_found"], file=file)


def chunked(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of some thousands: a million of them at a time would take a hundred megabytes."""
    items = iter(items)
    return iter(lambda: [*itertools.islice(items, _CHUNK)], [])


def path_at(paths: pa.Array, i: int) -> str:
    """The path of a number among paths that are the file system's bytes."""
    return os.fsdecode(paths[i].as_py())


def names_of(paths: pa.Array) -> pa.Array:
    """How rows call the images of these paths, see :func:`~datamodules.errors.printable`."""
    try:
        return paths.cast(pa.large_string())
    except pa.ArrowInvalid:  # one of them is no UTF-8
        return pa.array(map(printable, paths.to_pylist()), pa.large_string())


def first_batches(n: int, batch_size: int, limit: float) -> int:
    """How many of ``n`` samples lie in the first ``limit`` batches: a whole number of them, or a share of all.

    Example:
        >>> first_batches(10, 4, 2), first_batches(10, 4, 5), first_batches(10, 4, 0.5), first_batches(10, 4, 1.0)
        (8, 10, 4, 10)
    """
    n_batches = -(-n // batch_size)
    return min(n, batch_size * (limit if isinstance(limit, int) else int(n_batches * limit)))


def round_the_classes(groups: np.ndarray) -> np.ndarray:
    """The order that takes the first of each group, then the second of each, and so on."""
    groups = groups.astype(np.int32)
    by_group = np.argsort(groups, kind="stable").astype(np.int32)
    place = np.empty(len(groups), np.int32)
    place[by_group] = np.concatenate([np.arange(n, dtype=np.int32) for n in np.unique(groups, return_counts=True)[1]])
    return np.lexsort((groups, place))


def require_classes(root: Path | str, class_names: Sequence[str] | None) -> Sequence[str]:
    """The names of the network's classes, which decide the labels of what was packed.

    Raises:
        DataError: If there are none.
    """
    if class_names is None:
        raise DataError(f"To read what was packed into {root}, class_names have to be known: they decide the labels.")
    return class_names
