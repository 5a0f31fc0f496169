from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import ImageFolderDataModule, image_folder
from datamodules.reading.copied_ahead import CopiedAhead, CudaCopies
from tests.datamodules.trainers import fake_trainer
from tests.images import make_images


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
    monkeypatch.setattr(image_folder, "CudaCopies", lambda device: noted)
    data = ImageFolderDataModule(str(tmp_path), num_workers=0, batch_size=1)
    data.setup("test")
    for device, n in (("cpu", 0), ("cuda", 3)):
        data.trainer = fake_trainer(device=device)
        loader = data.test_dataloader()
        assert len(loader) == 3  # type: ignore[arg-type]
        assert [batch["path"] for batch in loader] == [["cat/a.png"], ["cat/b.png"], ["cat/c.png"]]
        assert sum(note.startswith("begin") for note in noted.notes) == n
