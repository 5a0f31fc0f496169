"""Streams tar shards in WebDataset's layout: files that share a name but for the extension are one sample."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from braceexpand import braceexpand
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.classes import ClassTable, UnknownClassError
from datamodules.errors import DataError
from datamodules.reading.decoding import EXTENSIONS
from datamodules.reading.samples import SampleReader, failed
from datamodules.reading.workers import DeathToll, WorkerDeath, warn_of, watched
from datamodules.sources.listing import (
    Listing,
    class_folders,
    list_files,
    printable,
    read_arrow,
    write_arrow,
)
from datamodules.sources.shard_reading import DAMAGES, first_key, read_shard

SUFFIXES = (".tar", ".tar.gz", ".tgz")


def is_shards(root: Path) -> bool:
    """Whether this names shards: a tar file, a pattern of them, or a folder that holds tar files and no images."""
    if not root.is_dir():
        return str(root).endswith(SUFFIXES)
    return bool(_shards_in(root)) and not class_folders(root) and not len(list_files(root))


def _shards_in(root: Path) -> list[str]:
    return sorted(str(root / e.name) for e in os.scandir(root) if e.name.endswith(SUFFIXES) and e.name[0] != ".")


@dataclass(frozen=True)
class ShardListing:
    """The shards of a data set.

    Attributes:
        shards: The files, in order.
        labels: Of the first sample: those of the others are known when they are read.
        done: Paths, as rows hold them, of the samples that have their rows already, sorted.
        repeats: Whether names begin anew in each shard, so that a sample is known by its shard's name too.
        file: Where :meth:`save` wrote it, to be mapped into memory.
    """

    shards: tuple[str, ...]
    labels: np.ndarray
    done: pa.Array
    repeats: bool = False
    file: Path | None = None

    def name(self, shard: int) -> str:
        """How rows call a shard: by its file's name or, if several have the same, by its path."""
        path = self.shards[shard]
        base = os.path.basename(path)
        return base if sum(os.path.basename(other) == base for other in self.shards) == 1 else path

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.file is None else (ShardListing.load, (self.file,))

    def without(self, done: Collection[str]) -> ShardListing:
        """The listing with the samples of these paths marked as done."""
        return replace(self, done=pa.array(done, pa.large_string(), size=len(done)).sort())

    def is_done(self, path: str) -> bool:
        place = bisect.bisect_left(range(len(self.done)), path, key=lambda k: self.done[k].as_py())
        return place < len(self.done) and self.done[place].as_py() == path

    def fingerprint(self) -> dict[str, Any]:
        """What tells these shards from others: their number, and a hash of their names and sizes."""
        sizes = [[Path(shard).name, os.stat(shard).st_size] for shard in self.shards]
        return {"n_shards": len(sizes), "sha256": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()}

    def save(self, file: Path) -> None:
        """Writes an Arrow file, aside and then renamed, so that it is either whole or not there."""
        shards = json.dumps({"shards": self.shards, "labels": self.labels.tolist(), "repeats": self.repeats})
        write_arrow(pa.table({"done": self.done}, metadata={"shards": shards}), file)

    @classmethod
    def load(cls, file: Path) -> ShardListing:
        """Maps what :meth:`save` wrote into memory."""
        table = read_arrow(file)
        found = json.loads(table.schema.metadata[b"shards"])
        done = table["done"].combine_chunks()
        return cls(tuple(found["shards"]), np.array(found["labels"]), done, found["repeats"], file)


def list_shards(root: Path, class_names: Sequence[str] | None) -> ShardListing:
    """Finds the shards, and looks at the first sample of each.

    Args:
        root: A tar file, a pattern such as ``val-{0000..0049}.tar``, or a folder that holds tar files.
        class_names: Names of the network's classes, by which the samples are labelled.

    Raises:
        DataError: If a shard of the pattern does not exist, or the first shard is no tar archive, holds no samples, or
            is of other classes than the network.
    """
    if class_names is None:
        raise DataError(f"To read shards ({root}), class_names have to be known: they decide the labels.")
    shards = _shards_in(root) if root.is_dir() else list(braceexpand(str(root)))
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise DataError(f"{len(missing)} of {len(shards)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    empty = pa.array([], pa.large_string())
    dataset = ShardDataset(ShardListing(tuple(shards), np.array([]), empty), SampleReader(None), class_names)
    firsts = [key for key in map(first_key, shards) if key is not None]
    repeats = len(set(firsts)) < len(firsts)
    return ShardListing(tuple(shards), np.array([dataset.first_label()]), empty, repeats)


def load_listing(file: Path) -> Listing | ShardListing:
    """Maps what a listing's ``save`` wrote into memory."""
    return (ShardListing if b"shards" in read_arrow(file).schema.metadata else Listing).load(file)


class Part(NamedTuple):
    """The samples ``start``, ``start + step``, ``start + 2 * step`` and so on of the shard of this number."""

    shard: int
    start: int = 0
    step: int = 1


def share(parts: Sequence[Part], index: int, count: int) -> list[Part]:
    """What the process of this index reads, if ``count`` processes share the parts so that each is read once.

    Whole parts where there are enough of them; otherwise those who share one take turns at its samples.

    Example:
        >>> share([Part(0), Part(1), Part(2)], 1, 2)
        [Part(shard=1, start=0, step=1)]
        >>> share([Part(0)], 1, 3)
        [Part(shard=0, start=1, step=3)]
    """
    if len(parts) >= count or not parts:
        return list(parts[index::count])
    turn, place = divmod(index, len(parts))
    shard, start, step = parts[place]
    return [Part(shard, start + turn * step, len(range(place, count, len(parts))) * step)]


class ShardDataset(IterableDataset):
    """The samples of shards as dicts; see :class:`~datamodules.reading.samples.SampleReader`.

    A sample's ``path`` is that of its image in the shard, after the shard's name where names begin anew in each. Its
    label stands in its ``.cls`` (a class name, a WordNet id or an index), or is that of the folder in its path; without
    either it is unlabelled. Its ``.xml`` holds the boxes, its ``.path`` the path if the name in the shard had to be
    another. A damaged shard becomes a failed sample of the shard's name, after the samples before the damage.

    Args:
        listing: The shards.
        reader: Makes the samples.
        class_names: Names of the network's classes.
        rank: Which process this is ...
        world: ... of so many, which share the samples.
    """

    def __init__(
        self, listing: ShardListing, reader: SampleReader, class_names: Sequence[str], rank: int = 0, world: int = 1
    ) -> None:
        self.listing = listing
        self.reader = reader
        self.classes = ClassTable(class_names)
        self.rank = rank
        self.world = world
        # Of each part, the position up to which its samples were given; and what is known to kill its reader.
        self.given: dict[Part, int] = {}
        self.lethal: dict[tuple[int, int], str] = {}
        self.watch(0)

    def watch(self, num_workers: int) -> None:
        """Makes room to note what each worker is at, where the main process sees it."""
        self._at = torch.full((max(1, num_workers), 2), -1).share_memory_()

    def place_of(self, worker: int) -> tuple[int, int]:
        """Shard and position of the sample that a worker was at last."""
        shard, position = self._at[worker].tolist()
        return shard, position

    def __iter__(self) -> Iterator[dict[str, Any]]:
        parts = share([Part(k) for k in range(len(self.listing.shards))], self.rank, self.world)
        worker = get_worker_info()
        for part in parts if worker is None else share(parts, worker.id, worker.num_workers):
            for position, sample in self._read_part(part, worker.id if worker else 0):
                yield {**sample, "place": (part, position)}

    def first_label(self) -> int:
        """The label of the first sample."""
        shard = self.listing.shards[0]
        try:
            sample = next(read_shard(shard), None)
        except DAMAGES as error:
            raise DataError(f"{shard} is no tar archive, or is damaged from the start: {error}") from error
        if sample is None:
            raise DataError(f"{shard} holds no samples.")
        path, _ = _image_of(sample)
        try:
            return self._label(path, sample)
        except ValueError as error:
            if "cls" not in sample:
                self.classes.of_folders([_folder_of(path)])
            raise DataError(f"The first sample of {shard}, {printable(path)}: {error}.") from error

    def _read_part(self, part: Part, worker: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The samples that were not given yet, with their positions."""
        shard, name = self.listing.shards[part.shard], self.listing.name(part.shard)
        position, keys = -1, set()
        try:
            for position, sample in enumerate(read_shard(shard)):
                again = sample["__key__"] in keys
                keys.add(sample["__key__"])
                if position % part.step != part.start or position <= self.given.get(part, -1):
                    continue
                path, image = _image_of(sample)
                row = f"{name}/{path}" if self.listing.repeats else path
                if again:
                    row = f"{row} (sample {position} of {name})"
                if not self.listing.is_done(printable(row)):
                    index = part.shard + len(self.listing.shards) * position
                    error = "an earlier sample of the shard has the same name" if again else sample.get("__error__")
                    error = error or self.lethal.get((part.shard, position))
                    self._at[worker] = torch.tensor([part.shard, position])
                    yield position, failed(row, error) if error else self._sample(row, path, image, index, sample)
        except DAMAGES as error:
            position += 1
            given = position <= self.given.get(part, -1) or self.listing.is_done(printable(name))
            if part.start == 0 and not given:
                yield position, failed(name, f"the shard is damaged after its first {position} samples: {error}")

    def _sample(self, row: str, path: str, image: str | None, index: int, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample of this path in its shard, which is called ``row`` in the rows."""
        if image is None:
            held = sorted(name for name in sample if not name.startswith("__"))
            return failed(row, f"a sample should hold one image; this one holds {', '.join(held)}")
        if any(content is None for content in sample.values()):
            return failed(row, "a link; shards hold the files themselves")
        try:
            label = self._label(path, sample)
        except ValueError as error:
            return failed(row, str(error))
        return self.reader.read(sample[image], row, label, index, sample.get("xml"))

    def _label(self, path: str, sample: dict[str, Any]) -> int:
        """Raises ValueError if there is no such class."""
        if "cls" in sample:
            text = printable(sample["cls"]).strip()
            try:
                return self.classes.index(text)
            except UnknownClassError as error:
                raise ValueError(f"its .cls is {text!r}, which is no class of the network") from error
        folder = _folder_of(path)
        label = self.classes.named(folder) if folder else -1
        if label is None:
            raise ValueError(f"its folder is {folder!r}, which is no class of the network")
        return label


def _folder_of(path: str) -> str:
    return printable(Path(path).parent.name)


def _image_of(sample: dict[str, Any]) -> tuple[str, str | None]:
    """The path of a sample, and the name under which it holds its image, None if there is not exactly one."""
    images = [name for name in sample if f".{name.lower()}" in EXTENSIONS]
    image = images[0] if len(images) == 1 else None
    if "path" in sample:
        return os.fsdecode(sample["path"]), image
    return sample["__key__"] + (f".{image}" if image else ""), image


class ShardLoader:
    """Batches of a :class:`ShardDataset`, also if its workers are killed. How many they will be is not known.

    When a worker dies, others go on from what was given; a sample that kills its worker twice becomes a failed one.
    """

    def __init__(self, dataset: ShardDataset, *, num_workers: int, collate_fn: Callable, **options: Any) -> None:
        self.dataset = dataset
        self.num_workers = num_workers
        self.options = {**options, "num_workers": num_workers, "collate_fn": partial(_with_places, collate_fn)}

    def __iter__(self) -> Iterator[Any]:
        self.dataset.watch(self.num_workers)
        toll = DeathToll(self.dataset.rank)
        while True:
            try:
                for places, n_read, batch in watched(DataLoader(self.dataset, **self.options)):
                    self.dataset.given.update(places)
                    if n_read:
                        toll.begin_anew()
                    yield batch
                return
            except WorkerDeath as death:
                warn_of(death, self.dataset.rank)
                place = self.dataset.place_of(death.number)
                if error := toll.blamed(place, death):
                    self.dataset.lethal[place] = error


def _with_places(collate: Callable, samples: Sequence[dict[str, Any]]) -> tuple[dict[Part, int], int, Any]:
    """How far a batch reaches into each part, how many of its samples did not fail, and the batch."""
    n_read = sum("failed" not in sample for sample in samples)
    return dict(sample["place"] for sample in samples), n_read, collate(samples)
