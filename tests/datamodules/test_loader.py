from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
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

from datamodules import ImageFolderDataModule, loader, modules
from datamodules.loader import CopiedAhead, CudaCopies, ThreadedLoader, lethal, marked
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
        signal.raise_signal(lethals[number])  # as a decoder that crashes: in this very thread


@pytest.mark.slow
@pytest.mark.process
def test_what_kills_its_reader_is_found(tmp_path: Path) -> None:
    """In children that begin anew, and only by those that were marked when a process ended."""
    lethals = {5: signal.SIGKILL, 9: signal.SIGSEGV}
    child = multiprocessing.get_context("fork").Process(
        target=batches, args=(partial(die, lethals=lethals), 3, 11), kwargs={"marks": tmp_path / "reading/0"}
    )
    child.start()
    child.join()
    assert child.exitcode in (-signal.SIGKILL, -signal.SIGSEGV)
    suspects = marked(tmp_path / "reading")
    assert 1 <= len(suspects) <= 3
    assert set(suspects) & {5, 9}
    assert lethal(partial(die, lethals={5: signal.SIGSEGV}), [3, 5, 7]) == {
        5: "whoever reads it is ended by signal 11 (SIGSEGV)"
    }


def fail(number: int) -> None:
    raise RuntimeError


@pytest.mark.process
def test_a_child_that_fails_otherwise_blames_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "CHILDREN", multiprocessing.get_context("fork"))
    with pytest.warns(UserWarning, match=r"could not be tried \(exit 1\)"):
        assert lethal(fail, [3, 4]) == {}


class Noted:
    """Copies that are only noted, in order."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begun(self, batch: Any) -> Any:
        self.notes.append(f"begin {batch}")
        return batch

    def ended(self, copy: Any) -> Any:
        self.notes.append(f"end {copy}")
        return copy

    def steps(self, loader: Any) -> list[str]:
        for batch in CopiedAhead(loader, self):
            self.notes.append(f"step {batch}")
        return self.notes


def test_the_next_copy_begins_before_a_step() -> None:
    assert Noted().steps(range(3)) == [
        *("begin 0", "begin 1", "end 0", "step 0"),
        *("begin 2", "end 1", "step 1"),
        *("end 2", "step 2"),
    ]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_every_batch_once_and_in_order(n: int) -> None:
    noted = Noted()
    ahead = CopiedAhead(range(n), noted)
    assert len(ahead) == n
    assert list(ahead) == list(ahead) == list(range(n))
    assert noted.notes.count("begin 0") == (2 if n else 0)


def test_what_was_read_before_an_error_is_computed() -> None:
    def failing() -> Iterator[int]:
        yield from range(2)
        raise ValueError("no more")

    noted = Noted()
    with pytest.raises(ValueError, match="no more"):
        noted.steps(failing())
    assert [note for note in noted.notes if note.startswith("step")] == ["step 0", "step 1"]


def test_a_loader_of_unknown_length_stays_one() -> None:
    with pytest.raises(TypeError):
        len(CopiedAhead(iter("ab"), Noted()))


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
    copies = CudaCopies(torch.device("meta"))
    copy = copies.begun({"image": torch.zeros(2, 3), "path": ["a", "b"], "label": torch.zeros(2)})
    batch = copies.ended(copy)
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
    for k, batch in enumerate(CopiedAhead(batches, CudaCopies(device))):
        assert batch["image"].device.type == "cuda"
        assert (batch["image"] == k).all()


def test_only_a_gpu_is_copied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_images(tmp_path, "cat/a.png", "cat/b.png", "cat/c.png")
    noted = Noted()
    monkeypatch.setattr(modules, "CudaCopies", lambda device: noted)
    data = ImageFolderDataModule(str(tmp_path), num_workers=0, batch_size=1)
    data.setup("test")
    for device, n in (("cpu", 0), ("cuda", 3)):
        data.trainer = fake_trainer(device=device)
        loader = data.test_dataloader()
        assert len(loader) == 3  # type: ignore[arg-type]
        assert [batch["path"] for batch in loader] == [["cat/a.png"], ["cat/b.png"], ["cat/c.png"]]
        assert sum(note.startswith("begin") for note in noted.notes) == n
