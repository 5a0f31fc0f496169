"""Where the disk is full, or a quota is, an error names what was being written, and the same command goes on later."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import evaluate_attribution
import pytest
from tensorboard.compat.tensorflow_stub.io.gfile import LocalFileSystem

from lightning_modules.results.storage import read_rows
from lightning_modules.running import cli
from lightning_modules.running.cli import leave_errors_of_the_disk_to_the_main_thread
from tests.images import make_images

OPTIONS = [
    *("--data.root", "images", "--data.num_workers", 0, "--data.batch_size", 1),
    *("--model.weights", "shapes", "--model.methods", "[GradCAM]", "--model.metrics", "[]", "--model.n_figures", 1),
    *("--trainer.accelerator", "cpu", "--report", "--out", "run"),
]
FILES = [
    *("config.yaml", "inputs.json", "sessions.json", "00000_a.png", "part-"),
    *("summary.json", "report.json", "index.html"),
]
"""What a run writes, one after the other."""


@pytest.fixture
def go(call: Callable, tmp_path: Path) -> Callable[[], int]:
    (tmp_path / "images").mkdir()
    make_images(tmp_path / "images", "a.png", "b.png")
    return lambda: call(evaluate_attribution.main, *OPTIONS)


@contextmanager
def full(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> Iterator[None]:
    """No file whose name begins so comes to the disk."""
    fsync = os.fsync

    def sync(descriptor: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.startswith(f".{name}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync)
        yield


@pytest.mark.slow
def test_each_file_is_named_and_the_same_command_goes_on(
    go: Callable[[], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for k, name in enumerate(FILES):
        number = (errno.ENOSPC, errno.EDQUOT)[k % 2]
        with (
            full(monkeypatch, name, number),
            pytest.raises(OSError, match=f"{os.strerror(number)}: '.*{name}") as raised,
        ):
            go()
        told = cli._sentence_of(raised.value)
        assert told is not None
        assert told.count("\n") == 0
        assert f"'run/{'results/' * (name == 'part-')}{'figures/' * name.endswith('png')}{name}" in told
        assert not list(tmp_path.rglob(".*.tmp"))
    assert go() == 0
    assert read_rows(tmp_path / "run/results").num_rows == 2
    assert (tmp_path / "run/index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("n_writes", [0, 1, 4])
def test_tensorboard(
    go: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    n_writes: int,
) -> None:
    """Its own thread writes, some time later, and hands its error on."""
    writes = 0
    write = LocalFileSystem._write

    def full(files: LocalFileSystem, *args: object) -> None:
        nonlocal writes
        writes += 1
        if writes > n_writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(files, *args)

    monkeypatch.setattr(threading, "excepthook", leave_errors_of_the_disk_to_the_main_thread)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "_write", full)
        with pytest.raises(OSError, match="No space left") as raised:
            go()
    told = cli._sentence_of(raised.value)
    assert told is not None
    assert told.startswith("error: [Errno 28] No space left on device: 'run")
    assert "Traceback" not in capsys.readouterr().err
    assert go() == 0
    assert read_rows(tmp_path / "run/results").num_rows == 2


def test_a_run_that_may_only_be_read(go: Callable[[], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = Path.open

    def refuse(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode != "r" and path.name == ".lock":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=r"Read-only file system: 'run/\.lock'"):
        go()
