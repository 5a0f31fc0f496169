"""Worker processes that may be killed: by the system, short of memory, or by a decoder that crashes."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader

from datamodules.errors import DataError
from datamodules.reading.worker_loader import cannot_hand_over

MOST_DEATHS = 10
"""So many workers that die one after the other without reading a single image are not the images' fault."""

SECONDS_TO_DIE = 1.0
"""How long after a worker's last message its death is waited for."""


def default_workers(n_devices: int = 1) -> int:
    """How many processes read images for each of so many devices, where nobody says it: they share the CPUs."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // n_devices))


class WorkerDeath(RuntimeError):
    """A worker process was killed; the message says which and how.

    Attributes:
        number: Of the worker among those of its loader.
        how: In words.
        is_bus_error: Whether memory that the worker was to have could not be had.
    """

    def __init__(self, number: int, worker: Any) -> None:
        self.number = number
        self.how = how_it_ended(worker.exitcode)
        self.is_bus_error = worker.exitcode == -signal.SIGBUS
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


class DeathToll:
    """Counts the deaths of workers, and says when a sample is to blame.

    Two workers that die at the same sample (one may have been chance) are its fault, and it is given up. Many that die
    in a row are not the fault of what they read, and no bus error is, which says that shared memory is short.

    Args:
        rank: Named in messages.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._in_a_row = 0
        self._at: Counter[Hashable] = Counter()

    def begin_anew(self) -> None:
        """Ends the row of deaths: something was read."""
        self._in_a_row = 0

    def blamed(self, sample: Hashable, death: WorkerDeath) -> str | None:
        """Counts a death at a sample; returns what is wrong with the sample if it is to be given up, else None.

        Raises:
            DataError: If :data:`MOST_DEATHS` workers died in a row, or two of bus errors at the sample.
        """
        self._in_a_row += 1
        self._at[sample] += 1
        if self._in_a_row >= MOST_DEATHS:
            raise DataError(
                f"{self._in_a_row} workers of rank {self.rank} died one after the other, whatever they read: the last "
                f"{death.how}. Give the run more memory, or read in the main process: --data.num_workers 0."
            ) from death
        if death.is_bus_error and self._at[sample] == 2:
            raise cannot_hand_over(f"one {death.how}, and so was the next at the same image") from death
        return f"the worker that decoded it {death.how}, twice" if self._at[sample] == 2 else None


def warn_of(death: WorkerDeath, rank: int) -> None:
    """Tells the user of a death that the run survives."""
    warnings.warn(
        f"Rank {rank}: {death}. Its images are read again. Signal 9 often means that the memory was short: "
        "fewer --data.num_workers take less.",
        stacklevel=2,
    )


def watched(loader: DataLoader[Any]) -> Iterator[Any]:
    """What the loader gives, while its workers are watched.

    Torch's own watch raises in the middle of whatever the main process does when a worker dies. Here that happens
    only while it waits for a batch.

    Raises:
        WorkerDeath: If a worker was killed.
        DataError: If one cannot hand over what it has read.
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
                deaths = [] if isinstance(error, DataError) else _deaths_soon(workers)
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
