"""Streams the samples of shards, shared out among processes and their workers, and outlives workers that are killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing.sharedctypes import RawArray
from typing import TYPE_CHECKING, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info

from datamodules.batch import Batch
from datamodules.reading.deaths import WorkerDeath
from datamodules.reading.samples import Failure, Sample, SampleReader, collate, failed, printable
from datamodules.reading.worker_loader import worker_loader
from datamodules.reading.workers import DeathToll, warn_of, watched
from datamodules.sources.listing import LoaderOptions
from datamodules.sources.shard_files import DAMAGES, read_shard
from datamodules.sources.shard_samples import image_of, read_sample

if TYPE_CHECKING:
    from datamodules.sources.shards import ShardListing


class Part(NamedTuple):
    """The samples ``start``, ``start + step``, ``start + 2 * step`` and so on of the shard of this number."""

    shard: int
    start: int = 0
    step: int = 1


def own_parts(parts: Sequence[Part], index: int, count: int) -> list[Part]:
    """What the process of this index reads, if ``count`` processes share the parts so that each is read once.

    Whole parts where there are enough of them; otherwise those who share one take turns at its samples.

    Example:
        >>> own_parts([Part(0), Part(1), Part(2)], 1, 2)
        [Part(shard=1, start=0, step=1)]
        >>> own_parts([Part(0)], 1, 3)
        [Part(shard=0, start=1, step=3)]
    """
    if len(parts) >= count or not parts:
        return list(parts[index::count])
    turn, place = divmod(index, len(parts))
    shard, start, step = parts[place]
    return [Part(shard, start + turn * step, len(range(place, count, len(parts))) * step)]


class PlacedSample(NamedTuple):
    """A sample, and its position in the shard of a part."""

    part: Part
    position: int
    sample: Sample | Failure


class PlacedBatch(NamedTuple):
    """A batch, how far it reaches into each part, and how many of its samples did not fail."""

    reached: dict[Part, int]
    n_read: int
    batch: Batch


class ShardDataset(IterableDataset[PlacedSample]):
    """The samples of shards.

    A sample's ``path`` is that of its image in the shard, after the shard's name where names begin anew in each. Its
    label stands in its ``.cls`` (a class name, a WordNet id or an index), or is that of the folder in its path; without
    either it is unlabelled. Its ``.xml`` holds the boxes, its ``.path`` the path if the name in the shard had to be
    another. A damaged shard becomes a failed sample of the shard's name, after the samples before the damage.

    Args:
        listing: The shards.
        reader: Makes the samples.
        rank: Which process this is ...
        world: ... of so many, which share the samples.
    """

    def __init__(self, listing: ShardListing, reader: SampleReader, rank: int = 0, world: int = 1) -> None:
        self.listing = listing
        self.reader = reader
        self.rank = rank
        self.world = world
        # Of each part, the position up to which its samples were given; and what is known to kill its reader.
        self.given: dict[Part, int] = {}
        self.lethal: dict[tuple[int, int], str] = {}
        self.make_room(0)

    def make_room(self, num_workers: int) -> None:
        """Makes room to note what each worker is at, where the main process sees it."""
        # Of each worker two numbers: a shard, and a position in it.
        self._at = RawArray("q", [-1, -1] * max(1, num_workers))

    def place_of(self, worker: int) -> tuple[int, int]:
        """Shard and position of the sample that a worker was at last."""
        shard, position = self._at[2 * worker : 2 * worker + 2]
        return shard, position

    def __iter__(self) -> Iterator[PlacedSample]:
        parts = own_parts([Part(k) for k in range(len(self.listing.shards))], self.rank, self.world)
        worker = get_worker_info()
        for part in parts if worker is None else own_parts(parts, worker.id, worker.num_workers):
            yield from self._read_part(part, worker.id if worker else 0)

    def _read_part(self, part: Part, worker: int) -> Iterator[PlacedSample]:
        """The samples that were not given yet."""
        name, given = self.listing.name(part.shard), self.given.get(part, -1)
        position, keys = -1, set()
        try:
            for position, sample in enumerate(read_shard(self.listing.shards[part.shard])):
                again = sample["__key__"] in keys
                keys.add(sample["__key__"])
                if position % part.step != part.start or position <= given:
                    continue
                path, _ = image_of(sample)
                row = f"{name}/{path}" if self.listing.repeats else path
                if again:
                    row = f"{row} (sample {position} of {name})"
                if not self.listing.is_done(printable(row)):
                    error = "an earlier sample of the shard has the same name" if again else sample.get("__error__")
                    error = error or self.lethal.get((part.shard, position))
                    index = part.shard + len(self.listing.shards) * position
                    self._at[2 * worker : 2 * worker + 2] = part.shard, position
                    made = failed(row, error) if error else read_sample(sample, row, index, self.reader)
                    yield PlacedSample(part, position, made)
        except DAMAGES as error:
            position += 1
            if part.start == 0 and position > given and not self.listing.is_done(printable(name)):
                message = f"the shard is damaged after its first {position} samples: {error}"
                yield PlacedSample(part, position, failed(name, message))


class ShardLoader:
    """Batches of a :class:`ShardDataset`, also if its workers are killed. How many they will be is not known.

    When a worker dies, others go on from what was given; a sample that kills its worker twice becomes a failed one.
    """

    def __init__(self, dataset: ShardDataset, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.options = options

    def __iter__(self) -> Iterator[Batch]:
        self.dataset.make_room(self.options["num_workers"])
        toll = DeathToll(self.dataset.rank)
        while True:
            try:
                loader = worker_loader(
                    self.dataset, _placed, sample_bytes=self.dataset.reader.sample_bytes, **self.options
                )
                for reached, n_read, batch in watched(loader):
                    self.dataset.given.update(reached)
                    if n_read:
                        toll.begin_anew()
                    yield batch
                return
            except WorkerDeath as death:
                warn_of(death, self.dataset.rank)
                place = self.dataset.place_of(death.number)
                if error := toll.blamed(place, death):
                    self.dataset.lethal[place] = error


def _placed(samples: Sequence[PlacedSample]) -> PlacedBatch:
    reached = {placed.part: placed.position for placed in samples}
    n_read = sum("failed" not in placed.sample for placed in samples)
    return PlacedBatch(reached, n_read, collate([placed.sample for placed in samples]))
