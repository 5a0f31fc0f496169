from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import ImageFolderDataModule, loader
from datamodules.loader import CopiedAhead, Marks, ThreadedLoader, forget, lethal, marked
from tests.datamodules.trainers import fake_trainer
from tests.images import make_images


def batches(read: Any, workers: int, n: int = 20, size: int = 3, **options: Any) -> list[list]:
    found = ThreadedLoader(read, np.arange(n)[::-1], size, workers, list, **options)
    assert len(found) == -(-n // size)
    return list(found)


WORKERS = pytest.mark.parametrize("workers", [0, 1, 2, 5])


@WORKERS
@pytest.mark.parametrize("size", [1, 3, 32])
def test_batches_are_in_order_whoever_is_slow(workers: int, size: int) -> None:
    """The first images wait until later ones are read, as far as threads read ahead."""
    later = threading.Event()

    def read(number: int) -> int:
        if number == 19 and workers > 1 and size > 1:
            assert later.wait(60)
        if number == 12:
            later.set()
        return number

    numbers = list(range(20))[::-1]
    assert batches(read, workers, size=size) == [numbers[k : k + size] for k in range(0, 20, size)]


@WORKERS
def test_errors_of_what_reads_are_its_own(workers: int) -> None:
    def read(number: int) -> int:
        if number == 7:
            raise RuntimeError("a bug")
        return number

    with pytest.raises(RuntimeError, match="a bug"):
        batches(read, workers)


@WORKERS
def test_who_stops_early_leaves_no_thread_and_no_marks(workers: int, tmp_path: Path) -> None:
    before = threading.active_count()
    read = ThreadedLoader(lambda number: number, range(1000), 4, workers, list, marks=tmp_path / "reading/0")
    for batch in read:
        assert batch == [0, 1, 2, 3]
        assert (tmp_path / "reading/0").exists()
        break
    del batch
    gc.collect()
    assert threading.active_count() == before
    assert list(tmp_path.iterdir()) == []
    assert sum(map(len, read)) == 1000
    assert list(tmp_path.iterdir()) == []


@WORKERS
def test_each_thread_marks_what_it_reads(workers: int, tmp_path: Path) -> None:
    seen = []

    def read(number: int) -> int:
        seen.append(number in marked(tmp_path / "reading"))
        return number

    batches(read, workers, marks=tmp_path / "reading/1")
    assert seen == [True] * 20


def die(number: int, lethals: dict[int, int]) -> None:
    if number in lethals:
        faulthandler.disable()
        signal.raise_signal(lethals[number] or os._exit(1))  # as a decoder that crashes: in this very thread


@pytest.mark.process
def test_what_kills_its_reader_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of those that were marked when a process ended, each in a child process."""
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(loader, "CHILDREN", fork)
    lethals = {5: signal.SIGKILL, 9: signal.SIGSEGV}
    child = fork.Process(
        target=batches, args=(partial(die, lethals=lethals), 3, 11), kwargs={"marks": tmp_path / "reading/0"}
    )
    child.start()
    child.join()
    assert child.exitcode in (-signal.SIGKILL, -signal.SIGSEGV)
    suspects = marked(tmp_path / "reading")
    assert 1 <= len(suspects) <= 3
    assert set(suspects) & {5, 9}
    with pytest.warns(UserWarning, match=r"could not be tried \(exit 1\)"):  # which blames nothing
        assert lethal(partial(die, lethals={4: 0, 5: signal.SIGSEGV}), [3, 4, 5, 7]) == {
            5: "whoever reads it is ended by signal 11 (SIGSEGV)"
        }


def test_what_is_forgotten_is_not_looked_at_again(tmp_path: Path) -> None:
    Marks(tmp_path / "reading/1", 2, int).numbers[:] = 3, 4
    Marks(tmp_path / "reading/0", 1, int).numbers[:] = 5
    assert marked(tmp_path / "reading") == [3, 4, 5]
    forget(tmp_path / "reading/1")
    assert marked(tmp_path / "reading") == [5]
    forget(tmp_path / "reading/0")
    assert list(tmp_path.iterdir()) == []


class Noted(CopiedAhead):
    """Copies that are only noted, in order."""

    def __init__(self, batches: Any) -> None:
        super().__init__(batches, torch.device("cpu"))
        self.notes: list[str] = []

    def _begun(self, batch: Any, stream: Any) -> Any:
        self.notes.append(f"begin {batch}")
        return batch, None

    def _ended(self, batch: Any, end: Any) -> Any:
        self.notes.append(f"end {batch}")
        return batch


@pytest.fixture
def _no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)


@pytest.mark.usefixtures("_no_stream")
def test_the_next_copy_begins_before_a_step() -> None:
    ahead = Noted(range(3))
    for batch in ahead:
        ahead.notes.append(f"step {batch}")
    assert ahead.notes == [
        *("begin 0", "begin 1", "end 0", "step 0"),
        *("begin 2", "end 1", "step 1"),
        *("end 2", "step 2"),
    ]


@pytest.mark.usefixtures("_no_stream")
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_every_batch_once_and_in_order(n: int) -> None:
    ahead = Noted(range(n))
    assert len(ahead) == n
    assert list(ahead) == list(ahead) == list(range(n))


def test_on_a_stream_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for CUDA's streams: the copies are made inside theirs, and the step's waits for their end."""
    notes: list[Any] = []

    class Stream:
        def __init__(self, device: torch.device, name: str = "copies'") -> None:
            self.name = name

        def record_event(self) -> str:
            notes.append(f"the {self.name} stream marks the end")
            return "end"

        def wait_event(self, event: str) -> None:
            notes.append(f"the {self.name} stream waits for the {event}")

    @contextlib.contextmanager
    def inside(stream: Stream) -> Iterator[None]:
        notes.append(f"into the {stream.name} stream")
        yield
        notes.append(f"out of the {stream.name} stream")

    moved = torch.Tensor.to

    def to(tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        notes.append(f"copy {tuple(tensor.shape)}, {non_blocking=}")
        return moved(tensor, device)

    of_the_step = Stream(torch.device("meta"), "step's")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: of_the_step)
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: notes.append(f"kept for the {stream.name}"))
    batches = [{"image": torch.zeros(2, 3), "path": ["a", "b"], "label": torch.zeros(2)}]
    (batch,) = CopiedAhead(batches, torch.device("meta"))
    assert notes == [
        "into the copies' stream",
        *("copy (2, 3), non_blocking=True", "copy (2,), non_blocking=True"),
        "the copies' stream marks the end",
        "out of the copies' stream",
        "the step's stream waits for the end",
        *["kept for the step's"] * 2,
    ]
    assert (batch["image"].device.type, batch["path"], batch["label"].device.type) == ("meta", ["a", "b"], "meta")


@pytest.mark.cuda
def test_on_a_gpu() -> None:
    device = torch.device("cuda")
    batches = [{"image": torch.full((64, 3, 64, 64), k, dtype=torch.uint8).pin_memory()} for k in range(9)]
    for k, batch in enumerate(CopiedAhead(batches, device)):
        assert batch["image"].device.type == "cuda"
        assert (batch["image"] == k).all()


def test_only_a_gpu_is_copied_to(tmp_path: Path) -> None:
    make_images(tmp_path, "cat/a.png", "cat/b.png", "cat/c.png")
    data = ImageFolderDataModule(str(tmp_path), num_workers=0, batch_size=1)
    data.setup("test")
    for device, kind in (("cpu", ThreadedLoader), ("cuda", CopiedAhead)):
        data.trainer = fake_trainer(device=device)
        found: Any = data.test_dataloader()
        assert (type(found), len(found)) == (kind, 3)
