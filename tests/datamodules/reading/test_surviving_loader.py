from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import Dataset

from datamodules import DataError
from datamodules.reading import workers as workers_module
from datamodules.reading.surviving_loader import SurvivingLoader

# A worker's death may come while torch opens files, to see whether it still can.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file <_io.FileIO:ResourceWarning")


class Numbers(Dataset):
    """Gives the numbers; some of them do something to the worker first."""

    def __init__(self, n: int, at: dict[int, Callable[[], None]]) -> None:
        self.n = n
        self.at = at

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        self.at.get(index, lambda: None)()
        return index

    def failure(self, index: int, error: str) -> Any:
        return f"{index}: {error}"


def killed(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def killed_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        killed()


def batches(dataset: Numbers, workers: int = 2, batch_size: int = 3) -> list[list]:
    # These stand in the way of nothing: the last two are not among them.
    indices = np.arange(dataset.n - 2)[::-1]
    loader = SurvivingLoader(dataset, indices, batch_size, workers, collate_fn=list, rank=5)
    assert len(loader) == -(-len(indices) // batch_size)
    return list(loader)


def flat(found: list[list]) -> list:
    return [sample for batch in found for sample in batch]


def expected(n: int, batch_size: int = 3) -> list[list]:
    indices = list(range(n - 2))[::-1]
    return [indices[k : k + batch_size] for k in range(0, len(indices), batch_size)]


@pytest.mark.parametrize("workers", [0, 2])
def test_nobody_dies(workers: int) -> None:
    assert batches(Numbers(22, {}), workers) == expected(22)
    handler = signal.getsignal(signal.SIGCHLD)
    assert batches(Numbers(4, {}), workers) == [[1, 0]]
    assert batches(Numbers(2, {}), workers) == []
    assert signal.getsignal(signal.SIGCHLD) is handler


@pytest.mark.process
@pytest.mark.parametrize("place", [0, 9, 19])
def test_a_worker_dies_once(tmp_path: Path, place: int) -> None:
    dataset = Numbers(22, {place: lambda: killed_once(tmp_path / "marker")})
    with pytest.warns(UserWarning, match=r"Rank 5: The worker process \d+ was killed by signal 9 \(SIGKILL\)") as said:
        assert batches(dataset) == expected(22)
    assert len(said) == 1


@pytest.mark.process
@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_exactly_the_sample_that_kills_fails(number: int, name: str) -> None:
    dataset = Numbers(22, {11: lambda: killed(number)})
    with pytest.warns(UserWarning, match=name):
        found = flat(batches(dataset))
    message = f"11: the worker that decoded it was killed by signal {int(number)} ({name}), twice"
    assert found == [message if k == 11 else k for k in range(20)[::-1]]


@pytest.mark.process
def test_a_bus_error_is_no_bad_sample() -> None:
    dataset = Numbers(22, {11: lambda: killed(signal.SIGBUS)})
    with (
        pytest.warns(UserWarning, match="SIGBUS"),
        pytest.raises(DataError, match=r"SIGBUS.*--shm-size.*ulimit -n.*--data\.num_workers 0"),
    ):
        batches(dataset)


@pytest.mark.process
def test_several_samples_kill_and_one_is_unlucky(tmp_path: Path) -> None:
    always = dict.fromkeys((19, 18, 10, 0), killed)
    dataset = Numbers(22, always | {9: lambda: killed_once(tmp_path / "marker")})
    with pytest.warns(UserWarning, match="SIGKILL"):
        found = flat(batches(dataset))
    assert [k for k in found if isinstance(k, int)] == [k for k in range(20)[::-1] if k not in always]
    assert [k.split(":")[0] for k in found if isinstance(k, str)] == ["19", "18", "10", "0"]


@pytest.mark.process
def test_the_main_process_is_not_interrupted() -> None:
    """A worker dies while the main process computes, which goes on; torch's own watch would raise there."""
    computing, (receiver, sender) = multiprocessing.Event(), multiprocessing.Pipe(duplex=False)

    def die_meanwhile() -> None:
        assert computing.wait(60)
        sender.send(os.getpid())
        killed()

    loader = SurvivingLoader(Numbers(22, {15: die_meanwhile}), np.arange(20), 1, 1, collate_fn=list)
    computed = []

    def compute() -> None:
        for batch in loader:
            if batch == [13]:  # the worker reads two batches ahead
                computing.set()
                os.waitid(os.P_PID, receiver.recv(), os.WEXITED | os.WNOWAIT)
            computed.extend(batch)

    with pytest.warns(UserWarning, match="SIGKILL"):
        compute()
    assert len(computed) == 20
    assert [k for k in computed if isinstance(k, int)] == [k for k in range(20) if k != 15]


@pytest.mark.process
def test_workers_that_always_die(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "MOST_DEATHS", 4)
    with (
        pytest.warns(UserWarning, match="SIGKILL"),
        pytest.raises(DataError, match="4 workers of rank 5 died one after"),
    ):
        batches(Numbers(22, dict.fromkeys(range(20), killed)))


def test_errors_of_the_data_set_are_its_own() -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        batches(Numbers(22, {15: fail}))
