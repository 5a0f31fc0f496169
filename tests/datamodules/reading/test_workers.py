from __future__ import annotations

from types import SimpleNamespace

import pytest

from datamodules import DataError
from datamodules.reading.deaths import WorkerDeath
from datamodules.reading.workers import MOST_DEATHS, DeathToll

DEATH = WorkerDeath(0, SimpleNamespace(pid=5, exitcode=-9))


def test_the_second_death_at_a_sample_is_its_fault() -> None:
    toll = DeathToll(rank=0)
    blamed = [toll.blamed(sample, DEATH) for sample in ("a", "b", "a", "a", "b")]
    message = "the worker that decoded it was killed by signal 9 (SIGKILL), twice"
    assert blamed == [None, None, message, None, message]


def test_a_bus_error_is_no_samples_fault() -> None:
    toll = DeathToll(rank=0)
    death = WorkerDeath(0, SimpleNamespace(pid=5, exitcode=-7))
    assert toll.blamed("a", death) is None
    assert toll.blamed("b", death) is None
    with pytest.raises(DataError, match=r"SIGBUS.*--shm-size 1g.*ulimit -n.*--data\.num_workers 0") as raised:
        toll.blamed("b", death)
    assert "\n" not in str(raised.value)


def test_many_deaths_in_a_row_are_not_the_samples_fault() -> None:
    toll = DeathToll(rank=3)
    for k in range(MOST_DEATHS - 1):
        toll.blamed(k, DEATH)
    toll.begin_anew()
    for k in range(MOST_DEATHS - 1):
        toll.blamed(k + 100, DEATH)
    with pytest.raises(DataError, match=f"{MOST_DEATHS} workers of rank 3 died one after the other.*signal 9"):
        toll.blamed("last", DEATH)
