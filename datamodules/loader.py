"""Batches that threads read, in order; on CUDA they are on their way to the device before they are asked for.

Pillow decodes and resizes without Python's lock, so threads read as fast as processes. Nothing that they call may use
what is not safe between threads: global random numbers, ``warnings.catch_warnings``, the settings of PIL.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")

PIECES = 4
"""Into so many pieces a thread's part of a batch is cut: fewer wait for each other, more take more time to hand out."""

MARKS = "reading"
"""Folder of RUN in which the threads of each process note what they read."""

CHILDREN = multiprocessing.get_context("spawn")
"""How a process is started that may die: without threads, locks and devices of this one."""


def default_workers(n_devices: int = 1) -> int:
    """How many threads read images for each of so many devices, where nobody says it: they share the CPUs."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // n_devices))


class ThreadedLoader(Generic[SampleT, BatchT]):
    """Batches of numbered samples, in order.

    Args:
        read: Number -> sample. Called by several threads at once.
        indices: The numbers, in order.
        batch_size: Samples in a batch.
        num_workers: Threads; 0 = the one that asks.
        collate: Samples -> batch. The tensors of a dict are pinned if there is a GPU.
        marks: File in which each thread notes the number that it reads, until it is read. None = nowhere.
    """

    def __init__(
        self,
        read: Callable[[int], SampleT],
        indices: Sequence[int] | np.ndarray,
        batch_size: int,
        num_workers: int,
        collate: Callable[[Sequence[SampleT]], BatchT],
        marks: Path | None = None,
    ) -> None:
        self.read = read
        self.indices = indices
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.collate = collate
        self.marks = marks

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[BatchT]:
        if not len(self):
            return
        read = self.read if self.marks is None else Marks(self.marks, max(1, self.num_workers), self.read)
        try:
            yield from self._by_threads(read) if self.num_workers else self._by_itself(read)
        finally:
            if self.marks is not None:
                forget(self.marks)

    def _by_itself(self, read: Callable[[int], SampleT]) -> Iterator[BatchT]:
        for start in range(0, len(self.indices), self.batch_size):
            yield self._batch(_each(read, self.indices[start : start + self.batch_size]))

    def _by_threads(self, read: Callable[[int], SampleT]) -> Iterator[BatchT]:
        size, n = self.batch_size, self.num_workers
        piece = max(1, size // (PIECES * n))
        ahead = 1 + -(-2 * n // size)
        window: deque[Future[BatchT]] = deque()
        # One more thread makes batches of samples, so that whoever asks does not.
        with ThreadPoolExecutor(n, "reader") as readers, ThreadPoolExecutor(1, "collate") as collator:
            try:
                for start in range(0, len(self.indices), size):
                    numbers = self.indices[start : start + size]
                    starts = range(0, len(numbers), piece)
                    pieces = [readers.submit(_each, read, numbers[k : k + piece]) for k in starts]
                    window.append(collator.submit(self._joined, pieces))
                    if len(window) > ahead:
                        yield window.popleft().result()
                while window:
                    yield window.popleft().result()
            finally:
                readers.shutdown(cancel_futures=True)
                collator.shutdown(cancel_futures=True)

    def _joined(self, pieces: Sequence[Future[list[SampleT]]]) -> BatchT:
        return self._batch([sample for piece in pieces for sample in piece.result()])

    def _batch(self, samples: Sequence[SampleT]) -> BatchT:
        batch: Any = self.collate(samples)
        if torch.cuda.is_available() and isinstance(batch, dict):  # where a GPU can fetch them by itself
            batch = {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}
        return batch


def _each(read: Callable[[int], SampleT], numbers: Sequence[int] | np.ndarray) -> list[SampleT]:
    return [read(int(number)) for number in numbers]


class Marks(Generic[SampleT]):
    """Reads samples, and notes what each thread is reading in a file mapped into memory, which outlives the process.

    Args:
        file: The file.
        n: Number of threads.
        read: Number -> sample.
    """

    def __init__(self, file: Path, n: int, read: Callable[[int], SampleT]) -> None:
        self.read = read
        file.parent.mkdir(parents=True, exist_ok=True)
        self.numbers = np.memmap(file, np.int64, "w+", shape=(n,))
        self.numbers[:] = -1
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(n):
            self.free.put(place)

    def __call__(self, number: int) -> SampleT:
        place = self.free.get()
        self.numbers[place] = number
        try:
            return self.read(number)
        finally:
            self.numbers[place] = -1
            self.free.put(place)


def forget(marks: Path) -> None:
    """Deletes what the threads of a process noted: it ends in order, whatever they are at."""
    marks.unlink(missing_ok=True)
    with suppress(OSError):  # others are still at work
        marks.parent.rmdir()


def marked(folder: Path) -> list[int]:
    """The numbers that were being read when the processes of a run ended, if they did not end by themselves."""
    found = [np.fromfile(file, np.int64) for file in sorted(folder.glob("*"))]
    return sorted({number for numbers in found for number in numbers.tolist() if number >= 0})


def lethal(read: Callable[[int], object], numbers: Sequence[int]) -> dict[int, str]:
    """Reads samples, each in a child process; of those that ended theirs, by which signal it was.

    Args:
        read: Number -> sample; must be picklable.
        numbers: Those to read.
    """
    found: dict[int, str] = {}
    for number in numbers:
        child = CHILDREN.Process(target=read, args=(number,), daemon=True)
        child.start()
        child.join()
        code = child.exitcode or 0
        if code < 0:
            found[number] = f"whoever reads it is ended by signal {-code} ({signal.Signals(-code).name})"
        elif code:
            warnings.warn(f"An image that the run was at when it ended could not be tried (exit {code}).", stacklevel=2)
    return found


class CopiedAhead(Generic[BatchT]):
    """A loader's batches, dicts of tensors and others, on a GPU: the next one is on its way before a batch is given.

    Lightning copies a batch when its step begins. A step ends when the rows are read from the device, which then has
    nothing to do while the copy takes place. Here the copy takes place, on a stream of its own, while the step before
    computes. That it waits for a batch more costs nothing: the threads read on meanwhile.

    Args:
        loader: Gives the batches; those that lie in pinned memory are copied without anybody waiting.
        device: The GPU.
    """

    def __init__(self, loader: Iterable[BatchT], device: torch.device) -> None:
        self.loader = loader
        self.device = device

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[BatchT]:
        stream = torch.cuda.Stream(self.device)
        waiting: deque[tuple[Any, torch.cuda.Event]] = deque()
        for batch in self.loader:
            waiting.append(self._begun(batch, stream))
            if len(waiting) > 1:
                yield self._ended(*waiting.popleft())
        while waiting:
            yield self._ended(*waiting.popleft())

    def _begun(self, batch: Any, stream: torch.cuda.Stream) -> tuple[Any, torch.cuda.Event]:
        """A copy of a batch that has begun, and its end; nobody waits for it."""
        with torch.cuda.stream(stream):
            moved = {
                name: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
                for name, value in batch.items()
            }
            return moved, stream.record_event()

    def _ended(self, batch: Any, end: torch.cuda.Event) -> Any:
        """The batch on the device; whatever the device is given to do from now on comes after the copy."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(end)
        for value in batch.values():
            if isinstance(value, Tensor):
                # Its memory is the other stream's, which must not have it again before this one is through with it.
                value.record_stream(current)
        return batch
