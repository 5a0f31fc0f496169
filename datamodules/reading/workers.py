"""Worker processes that may be killed: by the system, short of memory, or by a decoder that crashes."""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader

from datamodules.errors import DataError
from datamodules.reading.deaths import WorkerDeath
from datamodules.reading.worker_loader import cannot_hand_over

MOST_DEATHS = 10
"""So many workers that die one after the other without reading a single image are not the images' fault."""


def default_workers(n_devices: int = 1) -> int:
    """How many processes read images for each of so many devices, where nobody says it: they share the CPUs."""
    return max(1, min(8, len(os.sched_getaffinity(0)) // n_devices))


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
    """What the loader gives; where it raises, its workers are ended.

    Raises:
        WorkerDeath: If a worker was killed.
        DataError: If one cannot hand over what it has read.
    """
    batches = iter(loader)
    try:
        yield from batches
    except Exception:
        if workers := getattr(batches, "_workers", []):
            _stop(batches, workers)  # torch itself waits for them, for seconds
        raise


def _stop(batches: Any, workers: Sequence[Any]) -> None:
    """Ends what is left of a loader's workers."""
    for worker in workers:
        worker.kill()
        worker.join()
    # A worker may have died with a lock in its hands; then this never returns.
    thread = threading.Thread(target=batches._shutdown_workers, daemon=True)
    thread.start()
    thread.join(timeout=10)
