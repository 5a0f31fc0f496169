"""The loader of a data set whose samples have numbers, which outlives its worker processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from torch.utils.data import Dataset, Sampler

from datamodules.reading.deaths import WorkerDeath
from datamodules.reading.worker_loader import worker_loader
from datamodules.reading.workers import DeathToll, warn_of, watched

SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")


class FallibleDataset(Dataset[SampleT], ABC):
    """A data set of numbered samples, some of which may kill who reads them."""

    @abstractmethod
    def failure(self, index: int, error: str) -> SampleT:
        """The sample that stands for one of which no worker can say what is wrong."""


class IndexSampler(Sampler[int]):
    """Gives the numbers of an array, in order. A million of them as a list would take 40 megabytes."""

    def __init__(self, indices: np.ndarray) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.indices)


class SurvivingLoader(Generic[SampleT, BatchT]):
    """Batches of a data set's samples, as a DataLoader gives them, also if its workers are killed.

    When a worker dies, others go on from the first batch that has not been given. If one dies there again, the samples
    in question are read one at a time, and one that kills its worker twice becomes a failed sample.

    Args:
        dataset: The samples.
        indices: Which samples, in order.
        batch_size: Samples in a batch.
        num_workers: Processes; 0 = this one, which nothing survives.
        collate_fn: Samples -> batch.
        rank: Named in messages.
        sample_bytes: Gives how large a sample's tensors are; see :func:`worker_loader`.
        options: Further ones of the DataLoader.
    """

    def __init__(
        self,
        dataset: FallibleDataset[SampleT],
        indices: np.ndarray,
        batch_size: int,
        num_workers: int,
        collate_fn: Callable[[Sequence[SampleT]], BatchT],
        rank: int = 0,
        sample_bytes: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.rank = rank
        self.sample_bytes = sample_bytes
        self.options = options

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[BatchT]:
        given, suspected_until = 0, 0
        while given < len(self):
            loader = worker_loader(
                self.dataset,
                self.collate_fn,
                self.batch_size,
                self.sample_bytes,
                sampler=IndexSampler(self.indices[given * self.batch_size :]),
                num_workers=self.num_workers,
                **self.options,
            )
            try:
                for batch in watched(loader):
                    given += 1
                    yield batch
            except WorkerDeath as death:
                warn_of(death, self.rank)
                if given >= suspected_until:
                    # What the workers may have been at: they read this far ahead.
                    suspected_until = min(given + (loader.prefetch_factor or 1) * self.num_workers, len(self))
                    continue
                for batch in self._one_by_one(given, suspected_until):
                    given += 1
                    yield batch

    def _one_by_one(self, first: int, end: int) -> Iterator[BatchT]:
        """The batches from ``first`` to ``end``, read by one worker that is at one sample at a time."""
        indices = self.indices[first * self.batch_size : end * self.batch_size]
        samples: list[SampleT] = []
        toll = DeathToll(self.rank)
        while len(samples) < len(indices):
            loader = worker_loader(
                self.dataset,
                _as_it_is,
                batch_size=None,
                sampler=IndexSampler(indices[len(samples) :]),
                num_workers=1,
                prefetch_factor=1,
            )
            try:
                for sample in watched(loader):
                    samples.append(sample)
                    toll.begin_anew()
            except WorkerDeath as death:
                if error := toll.blamed(len(samples), death):
                    samples.append(self.dataset.failure(int(indices[len(samples)]), error))
        for start in range(0, len(samples), self.batch_size):
            yield self.collate_fn(samples[start : start + self.batch_size])


def _as_it_is(sample: SampleT) -> SampleT:
    return sample
