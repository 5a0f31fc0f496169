from __future__ import annotations

import errno
import multiprocessing
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.utilities.data import _update_dataloader
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from datamodules import DataError, ImageFolderDataModule, ImageSourcesDataModule
from datamodules.reading import worker_loader as module
from datamodules.reading.decoding import Preprocess
from datamodules.reading.parcels import Parcel
from datamodules.reading.samples import MORE_PER_SAMPLE, SampleReader
from datamodules.reading.surviving_loader import SurvivingLoader
from datamodules.reading.worker_loader import worker_loader
from tests.images import make_images

pytestmark = pytest.mark.process

SENTENCE = r"cannot hand over what they have read: {}\. Give .*--shm-size.*ulimit -n.*--data\.num_workers 0"
N = 30


class Rows(Dataset):
    """Sample k is four times k."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((4,), float(index))

    def failure(self, index: int, error: str) -> torch.Tensor:
        raise NotImplementedError

    @staticmethod
    def sample_bytes() -> int:
        return 16


def collate(samples: Sequence[torch.Tensor]) -> dict[str, Any]:
    return {"rows": torch.stack(list(samples)), "n": len(samples)}


def numbers(batches: Any) -> list[list[float]]:
    return [batch["rows"][:, 3].tolist() for batch in batches]


def plain() -> list[list[float]]:
    return numbers(DataLoader(Rows(), batch_size=4, collate_fn=collate))  # type: ignore[arg-type]


def loader(workers: int, **options: Any) -> Any:
    return worker_loader(Rows(), collate, 4, Rows.sample_bytes, num_workers=workers, **options)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_those_of_a_plain_loader(workers: int) -> None:
    assert numbers(loader(workers)) == plain()
    assert numbers(list(loader(workers))) == plain()  # when all are kept, there are not slots for all


@pytest.mark.parametrize("persistent", [False, True], ids=["anew", "persistent"])
def test_it_can_be_read_again_and_left_early(persistent: bool) -> None:
    of_two = loader(2, persistent_workers=persistent)
    next(iter(of_two))
    for _ in range(2):
        assert numbers(of_two) == plain()
        assert not any(of_two.collate_fn.slots.take(0) is None for _ in range(3))  # all were free
        of_two.collate_fn.slots._is_taken[:] = False


def test_tensors_lie_in_slots_where_these_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    of_one = loader(1)
    for batch in of_one:
        slots = of_one.collate_fn.slots
        assert slots._is_taken.sum() >= 1
        assert len(batch["rows"])
    monkeypatch.setattr(module, "Slots", None)
    assert numbers(worker_loader(Rows(), collate, 4, num_workers=1)) == plain()  # tensors so small need none


def test_lightning_may_make_another_of_it() -> None:
    of_two = loader(2)
    assert numbers(_update_dataloader(of_two, SequentialSampler(range(N)))) == plain()


@pytest.mark.parametrize("cause", ["memory", "start"])
def test_without_shared_memory_all_goes_through_the_pipe(monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    def refuse(*args: int) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    if cause == "memory":
        monkeypatch.setattr(module, "Slots", refuse)
    else:
        monkeypatch.setattr(multiprocessing, "get_start_method", lambda: "spawn")
    reason = {"memory": "Cannot allocate memory", "start": "processes that are started by spawn share no memory"}
    with pytest.warns(UserWarning, match=f"through a pipe, which is slower than .*: .*{reason[cause]}") as said:
        assert numbers(loader(2)) == plain()
    assert len(said) == 1


class TestNothingCanBeHandedOver:
    """Whatever fails, the main process learns of it: it neither waits for good nor blames a sample."""

    def both(self, match: str) -> None:
        surviving = SurvivingLoader(Rows(), np.arange(N), 4, 2, collate)
        for batches in (loader(2), loader(2, persistent_workers=True), surviving):
            with pytest.raises(DataError, match=match) as raised:
                list(batches)
            assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (OSError(errno.EMFILE, "Too many open files"), r"\[Errno 24\] Too many open files"),
            (OSError(errno.ENOSPC, "No space left on device"), r"\[Errno 28\] No space left on device"),
            (MemoryError(), "MemoryError"),
        ],
        ids=["files", "room", "memory"],
    )
    def test_packing(self, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
        def refuse(*args: Any) -> None:
            raise error

        monkeypatch.setattr(module, "Parcel", refuse)
        self.both(SENTENCE.format(reason))

    def test_sending(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python's queue sends in a thread of its own, and drops what it cannot send."""

        def refuse(parcel: Parcel) -> None:
            raise MemoryError("no room to send it")

        monkeypatch.setattr(Parcel, "__reduce__", refuse)
        self.both(SENTENCE.format("no room to send it"))

    @pytest.mark.parametrize("n_started", [0, 1])
    def test_starting(self, monkeypatch: pytest.MonkeyPatch, n_started: int) -> None:
        made: list[Any] = []

        def process(*args: Any, **options: Any) -> Any:
            if len(made) % (n_started + 1) == n_started:
                made.append(None)
                raise OSError(errno.ENOSPC, "No space left on device")  # as of its locks, which lie in /dev/shm
            made.append(multiprocessing.Process(*args, **options))
            return made[-1]

        monkeypatch.setattr(torch.multiprocessing, "Process", process)
        self.both(SENTENCE.format(r"\[Errno 28\] No space left on device"))
        for worker in filter(None, made):
            worker.join(60)
            assert worker.exitcode == -signal.SIGKILL

    def test_a_later_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was handed over before has arrived."""

        def of_few(batch: Any, *args: Any) -> Parcel:
            if float(batch["rows"][0, 0]) >= 16:
                raise OSError(errno.EMFILE, "Too many open files")
            return Parcel(batch, *args)

        monkeypatch.setattr(module, "Parcel", of_few)
        found: list[Any] = []
        with pytest.raises(DataError, match=SENTENCE.format(".*Too many open files")):
            found.extend(SurvivingLoader(Rows(), np.arange(N), 4, 2, collate))
        assert numbers(found) == plain()[:4]


class TestOpenFiles:
    def test_the_limit_is_raised_as_far_as_need_be(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = []
        monkeypatch.setattr(resource, "getrlimit", lambda of: (20, 4096))
        monkeypatch.setattr(resource, "setrlimit", lambda of, to: limits.append(to))
        assert numbers(loader(2)) == plain()
        ((soft, hard),) = limits
        assert 20 < soft < 4096
        assert hard == 4096

    def test_it_cannot_be_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda of: (20, 20))
        reason = r"2 workers take the open files to \d+, of which 20 are allowed"
        with pytest.raises(DataError, match=SENTENCE.format(reason)):
            list(loader(2))
        assert numbers(loader(0)) == plain()

    def test_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda of: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert numbers(loader(2)) == plain()


def same(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def test_every_reader_of_images(tmp_path: Path) -> None:
    """Testing, validation, prediction: their batches are those of one process."""
    names = [f"{folder}/{k}.png" for k in range(9) for folder in ("cat", "dog")]
    make_images(tmp_path / "images", *names)
    options: dict[str, Any] = {"batch_size": 4, "input_size": 32, "resize_size": 36}
    found: list[list[Any]] = []
    for workers in (0, 2):
        data = ImageFolderDataModule(str(tmp_path / "images"), n_originals=3, num_workers=workers, **options)
        data.setup("test")
        data.setup("fit")
        sources = ImageSourcesDataModule([str(tmp_path / "images")], num_workers=workers, **options)
        loaders = [data.test_dataloader(), data.val_dataloader(), sources.predict_dataloader()]
        found.append([batch for batches in loaders for batch in batches])
    for a, b in zip(*found, strict=True):
        original = [[None if o is None else (o.pixels.tolist(), o.view) for o in x.pop("original")] for x in (a, b)]
        assert original[0] == original[1]
        assert all(same(a[name], b[name]) for name in a)


def test_a_sample_takes_room_for_its_bytes() -> None:
    """Not for the floats that a LightningModule makes of them, which would be four times as many."""
    assert SampleReader(Preprocess(12, 10)).sample_bytes() == 3 * 10 * 10 + MORE_PER_SAMPLE
