"""The DataLoader that all images are read by: its workers can hand over what they have read, or say that they cannot.

PyTorch's own way takes an open file for each tensor, and room in /dev/shm. A worker that has no more of either tells
nobody, and the main process waits for good. Here batches lie in anonymous memory, which takes neither; what finds no
place there goes through the pipe that tells of it, which is slower.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from typing import Any, Generic, TypeVar

from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from datamodules.errors import DataError
from datamodules.reading.deaths import WatchedBatches
from datamodules.reading.parcels import Parcel, Slots

SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")

FILES_OF_WORKER = 4
"""Open files that a worker takes in the main process: the ends of two pipes, to it and from it, and of two more that
tell when it ends."""

FILES_TO_SPARE = 12
"""Open files that are left to the rest: what all workers have in common, the rows, the figures and the log."""


def cannot_hand_over(reason: object) -> DataError:
    """The error of workers that cannot start, or cannot hand over what they have read."""
    return DataError(
        f"The workers that read images cannot hand over what they have read: {reason}. Give a container more shared "
        "memory (docker run --shm-size 1g), allow more open files (ulimit -n 4096), or read in the main process: "
        "--data.num_workers 0 (of predict.py, --num_workers 0)."
    )


class NotHandedOver(ExceptionWrapper):
    """What a worker gives in place of a batch that it cannot hand over: PyTorch raises the error where it waits."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = f"{reason}" or type(reason).__name__

    def reraise(self) -> None:
        raise cannot_hand_over(self.reason)


class Packing(Generic[SampleT, BatchT]):
    """Samples -> batch, which a worker packs as a parcel; where the parcel arrives it is the batch again.

    Args:
        collate_fn: Samples -> batch.
        batch_size: Samples in a batch.
        sample_bytes: Gives how large a sample's tensors are in it. None = so small that they need no memory of their
            own.

    Attributes:
        slots: The memory that workers put their batches in; None = none.
    """

    def __init__(
        self,
        collate_fn: Callable[[Sequence[SampleT]], BatchT],
        batch_size: int,
        sample_bytes: Callable[[], int] | None,
    ) -> None:
        self.collate_fn = collate_fn
        self.batch_size = batch_size
        self.sample_bytes = sample_bytes
        self.slots: Slots | None = None

    def find_room(self, n_workers: int, n_ahead: int) -> None:
        """Makes slots for workers that are forked next, each of which reads ``n_ahead`` batches ahead."""
        self.slots = None
        if self.sample_bytes is None:
            return
        n_bytes = self.batch_size * self.sample_bytes()
        if multiprocessing.get_start_method() != "fork":
            reason = f"processes that are started by {multiprocessing.get_start_method()} share no memory"
        else:
            try:
                # Beside what it has read ahead, the main process has some in use: those of an only worker are all its.
                self.slots = Slots(n_workers, n_ahead + (2 if n_workers == 1 else 1), n_bytes)
                return
            except OSError as error:
                reason = str(error)
        warnings.warn(
            f"Workers hand over their batches of {n_bytes / 1e6:,.0f} MB through a pipe, which is slower than "
            f"shared memory: {reason}.",
            stacklevel=2,
        )

    def __call__(self, samples: Sequence[SampleT]) -> BatchT | Parcel | NotHandedOver:
        batch = self.collate_fn(samples)
        worker = get_worker_info()
        if worker is None:
            return batch
        try:
            return Parcel(batch, self.slots, worker.id)
        except (OSError, MemoryError) as error:
            return NotHandedOver(error)


class WorkerLoader(DataLoader[SampleT]):
    """A DataLoader made by :func:`worker_loader`.

    Its options are those of any other, since Lightning makes another one of them to train on several devices.
    """

    collate_fn: Packing[Any, Any]

    def _get_iterator(self) -> Any:
        return WatchedBatches(self) if self.num_workers else super()._get_iterator()

    def __iter__(self) -> Any:
        is_running = self.persistent_workers and self._iterator is not None
        if not self.num_workers or is_running:
            return super().__iter__()
        _allow_files(self.num_workers)
        self.collate_fn.find_room(self.num_workers, self.prefetch_factor or 0)
        try:
            return super().__iter__()
        except OSError as error:
            _end_half_started(error)
            raise cannot_hand_over(error) from error


def worker_loader(
    dataset: Dataset[SampleT],
    collate_fn: Callable[[Sequence[SampleT]], BatchT],
    batch_size: int | None,
    sample_bytes: Callable[[], int] | None = None,
    **options: Any,
) -> WorkerLoader[SampleT]:
    """A DataLoader whose batches arrive whatever the limits are of /dev/shm and open files.

    Iterating over it raises a :class:`~datamodules.errors.DataError` if workers cannot start or cannot hand over.

    Args:
        dataset: The samples.
        collate_fn: Samples -> batch.
        batch_size: Samples in a batch; None = each is given by itself.
        sample_bytes: Gives how large a sample's tensors are, of which a batch's are made, see :class:`Packing`.
        options: Further ones of the DataLoader.
    """
    packing: Any = Packing(collate_fn, batch_size or 1, sample_bytes)
    return WorkerLoader(
        dataset, collate_fn=packing, worker_init_fn=_tell_what_is_not_sent, batch_size=batch_size, **options
    )


def _end_half_started(error: OSError) -> None:
    """Ends the workers that had started before the error, which PyTorch, when it ends them, takes for all."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        batches: Any = frame.f_locals.get("self")
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            for worker in getattr(batches, "_workers", []):
                worker.kill()
            batches._shutdown = True


def _tell_what_is_not_sent(worker: int) -> None:
    """In a worker, lets the main process know of a message that could not be sent; Python's own queue drops it."""
    Queue._on_queue_feeder_error = _send_the_reason  # type: ignore[attr-defined]


def _send_the_reason(queue: Any, error: Exception, message: Any) -> None:
    index, content = message
    if isinstance(error, BrokenPipeError) or isinstance(content, NotHandedOver):
        os._exit(1)  # nobody listens, or nothing can be sent at all; a worker that ends is noticed
    queue.put((index, NotHandedOver(error)))


def _allow_files(n_workers: int) -> None:
    """Raises the limit of open files as far as workers need it.

    Raises:
        DataError: If the system does not allow it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + FILES_OF_WORKER * n_workers + FILES_TO_SPARE
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise cannot_hand_over(f"{n_workers} workers take the open files to {needed}, of which {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
