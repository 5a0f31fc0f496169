"""Deaths of worker processes, which are noticed where a batch is waited for, and nowhere else."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from torch.utils.data._utils import MP_STATUS_CHECK_INTERVAL
from torch.utils.data.dataloader import DataLoader, _MultiProcessingDataLoaderIter

from datamodules.errors import DataError

SECONDS_TO_DIE = 1.0
"""How long after a worker's last message its death is waited for."""

_waiting = threading.Event()


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


class WatchedBatches(_MultiProcessingDataLoaderIter):
    """PyTorch's iterator, which a worker's death interrupts only while it waits for a batch.

    PyTorch's own watch raises in the middle of whatever the main process does.

    Raises:
        WorkerDeath: If a worker was killed.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        _quieten_torch()

    def _try_get_data(self, timeout: float = MP_STATUS_CHECK_INTERVAL) -> Any:
        if threading.current_thread() is threading.main_thread():  # which gets the signals
            _waiting.set()
        try:
            # A worker that died in the middle of a message would be waited for forever: look first.
            if found := _deaths(self._workers):
                raise found[0]
            return super()._try_get_data(timeout)
        except Exception as error:  # a message that was cut off raises nearly anything
            _waiting.clear()
            if isinstance(error, DataError | WorkerDeath) or not (found := _deaths_soon(self._workers)):
                raise
            raise found[0] from error
        finally:
            _waiting.clear()


def _quieten_torch() -> None:
    """Lets PyTorch's handler of a child's end raise only while a batch is waited for."""
    of_torch: Any = signal.getsignal(signal.SIGCHLD)
    if getattr(of_torch, "__module__", "") != "torch.utils.data._utils.signal_handling":
        return  # is quiet already, or there is none, as outside of the main thread

    def handler(signum: int, frame: Any) -> None:
        if _waiting.is_set():
            of_torch(signum, frame)

    signal.signal(signal.SIGCHLD, handler)


def _deaths(workers: Sequence[Any]) -> list[WorkerDeath]:
    """The workers that were killed."""
    return [WorkerDeath(k, worker) for k, worker in enumerate(workers) if not worker.is_alive() and worker.exitcode]


def _deaths_soon(workers: Sequence[Any]) -> list[WorkerDeath]:
    """The same a moment later: a worker's connections close before it can be seen to have ended."""
    end = time.monotonic() + SECONDS_TO_DIE
    while not (found := _deaths(workers)) and time.monotonic() < end:
        time.sleep(0.01)
    return found
