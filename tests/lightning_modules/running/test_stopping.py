from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_modules.running import stopping


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
@pytest.mark.parametrize(
    ("parent", "first", "is_ended"),
    [
        (4711, b"/sbin/init\0", False),
        (1, b"/sbin/init\0", True),  # an orphan
        (1, b"python\0scripts/predict.py\0x.jpg\0", False),  # in a container, whose first process began the run
    ],
)
def test_an_orphan_ends(monkeypatch: pytest.MonkeyPatch, parent: int, first: bytes, is_ended: bool) -> None:
    asked: list[tuple[int, ...]] = []
    killed: list[tuple[int, int]] = []
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "argv", ["scripts/predict.py"])
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(Path, "read_bytes", lambda path: first)
    monkeypatch.setattr(stopping.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *args: asked.append(args)))
    stopping.end_with_the_first_process()
    assert asked == [(stopping.PR_SET_PDEATHSIG, signal.SIGTERM)]
    assert bool(killed) == is_ended
