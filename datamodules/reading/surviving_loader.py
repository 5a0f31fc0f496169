"""Loaders whose worker processes may be killed: by the system, short of memory, or by a decoder that crashes."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from datamodules.errors import DataError

MOST_DEATHS = 10
"""So many workers that die one after the other without reading a single image are not the images' fault."""


SECONDS_TO_DIE = 1.0


class WorkerDeath(RuntimeError):
    """A worker process was killed; the message says which and how.

    Attributes:
        number: Of the worker among those of its loader.
        how: In words.
    """

    def __init__(self, number: int, worker: Any) -> None:
        self.number = number
        self.how = how_it_ended(worker.exitcode)
        super().__init__(f"The worker process {worker.pid} {self.how}")


def how_it_ended(exitcode: int | None) -> str:
    """What a process's exit code says.

    Example:
        >>> how_it_ended(-9)
        'was killed by signal 9 (SIGKILL)'
    """
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-exitcode} ({name})"


def iterate(loader: DataLoader) -> Iterator[Any]:
    """What the loader gives; its workers are watched.

    Torch's own watch raises in the middle of whatever the main process does when a worker dies. Here that happens
    only while it waits for a batch.

    Raises:
        WorkerDeath: If a worker was killed.
    """
    batches = iter(loader)
    workers: list = getattr(batches, "_workers", [])
    with _interrupted_by_deaths() as waiting:
        while True:
            try:
                waiting.set()
                # A worker that died in the middle of a message would be waited for forever: look first.
                if _deaths(workers):
                    raise RuntimeError
                batch = next(batches)
                waiting.clear()
            except StopIteration:
                return
            except Exception as error:  # a message that was cut off raises nearly anything
                waiting.clear()
                deaths = _deaths_soon(workers)
                if workers:
                    _stop(batches, workers)  # torch itself waits for them, for seconds
                if not deaths:
                    raise  # an error of the data set's own
                raise deaths[0] from error
            yield batch


def _deaths(workers: Sequence[Any]) -> list[WorkerDeath]:
    """The workers that were killed."""
    return [WorkerDeath(k, worker) for k, worker in enumerate(workers) if not worker.is_alive() and worker.exitcode]


def _deaths_soon(workers: Sequence[Any]) -> list[WorkerDeath]:
    """The same a moment later: a worker's connections close before it can be seen to have ended."""
    end = time.monotonic() + SECONDS_TO_DIE
    while True:
        deaths = _deaths(workers)
        if deaths or not workers or time.monotonic() > end:
            return deaths
        time.sleep(0.01)


@contextmanager
def _interrupted_by_deaths() -> Iterator[threading.Event]:
    """Lets the death of a child process raise what torch's handler raises only while the event is set."""
    waiting = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield waiting  # has no signal handlers
        return
    before = signal.getsignal(signal.SIGCHLD)

    def handler(signum: int, frame: Any) -> None:
        if waiting.is_set() and callable(before):
            before(signum, frame)

    signal.signal(signal.SIGCHLD, handler)
    try:
        yield waiting
    finally:
        signal.signal(signal.SIGCHLD, before if before is not None else signal.SIG_DFL)


def _stop(batches: Any, workers: Sequence[Any]) -> None:
    """Ends what is left of a loader's workers."""
    for worker in workers:
        worker.kill()
        worker.join()
    # A worker may have died with a lock in its hands; then this never returns.
    thread = threading.Thread(target=batches._shutdown_workers, daemon=True)
    thread.start()
    thread.join(timeout=10)


def tell(death: WorkerDeath, rank: int) -> None:
    """Warns of a death that the run survives."""
    warnings.warn(
        f"Rank {rank}: {death}. Its images are read again. Signal 9 often means that the memory was short: "
        "fewer --data.num_workers take less.",
        stacklevel=2,
    )


def died_twice(death: WorkerDeath) -> str:
    """The error of the image that was being decoded."""
    return f"the worker that decoded it {death.how}, twice"


def too_many_deaths(n: int, rank: int, last: WorkerDeath) -> DataError:
    """What ends the run: see :data:`MOST_DEATHS`."""
    return DataError(
        f"{n} workers of rank {rank} died one after the other, whatever they read: the last {last.how}. Give the run "
        "more memory, or read in the main process: --data.num_workers 0."
    )


class IndexSampler(Sampler[int]):
    """Gives the numbers of an array, in order. A million of them as a list would take 40 megabytes."""

    def __init__(self, indices: np.ndarray) -> None:
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return map(int, self.indices)


class SurvivingLoader:
    """Batches of a data set's samples, as a DataLoader gives them, also if its workers are killed.

    When a worker dies, others go on from the first batch that has not been given. If one dies there again, the samples
    in question are read one at a time, and one that kills its worker twice becomes a failed sample.

    Args:
        dataset: Has ``failure(index, error)``, the sample that stands for one that cannot be read.
        indices: Which samples, in order.
        batch_size: Samples in a batch.
        num_workers: Processes; 0 = this one, which nothing survives.
        collate_fn: Samples -> batch.
        rank: Named in messages.
        options: Further ones of the DataLoader.
    """

    def __init__(
        self,
        dataset: Any,
        indices: np.ndarray,
        batch_size: int,
        num_workers: int,
        collate_fn: Callable[[Sequence[Any]], Any],
        rank: int = 0,
        **options: Any,
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.rank = rank
        self.options = options

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        given, suspected_until = 0, 0
        while given < len(self):
            loader = DataLoader(
                self.dataset,
                batch_size=self.batch_size,
                sampler=IndexSampler(self.indices[given * self.batch_size :]),
                num_workers=self.num_workers,
                collate_fn=self.collate_fn,
                **self.options,
            )
            try:
                for batch in iterate(loader):
                    given += 1
                    yield batch
            except WorkerDeath as death:
                tell(death, self.rank)
                if given >= suspected_until:
                    # What the workers may have been at: they read this far ahead.
                    suspected_until = min(given + (loader.prefetch_factor or 1) * self.num_workers, len(self))
                    continue
                for batch in self._one_by_one(given, suspected_until):
                    given += 1
                    yield batch

    def _one_by_one(self, first: int, end: int) -> Iterator[Any]:
        """The batches from ``first`` to ``end``, read by one worker that is at one sample at a time."""
        indices = self.indices[first * self.batch_size : end * self.batch_size]
        samples: list[Any] = []
        deaths = deaths_here = 0
        while len(samples) < len(indices):
            loader = DataLoader(
                self.dataset,
                batch_size=None,
                sampler=IndexSampler(indices[len(samples) :]),
                num_workers=1,
                prefetch_factor=1,
                collate_fn=_as_it_is,
            )
            try:
                for sample in iterate(loader):
                    samples.append(sample)
                    deaths = deaths_here = 0
            except WorkerDeath as death:
                deaths, deaths_here = deaths + 1, deaths_here + 1
                if deaths >= MOST_DEATHS:
                    raise too_many_deaths(deaths, self.rank, death) from death
                if deaths_here == 2:  # once may have been chance
                    error = died_twice(death)
                    samples.append(self.dataset.failure(int(indices[len(samples)]), error))
                    deaths_here = 0
        for start in range(0, len(samples), self.batch_size):
            yield self.collate_fn(samples[start : start + self.batch_size])


def _as_it_is(sample: Any) -> Any:
    return sample
