from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_modules.running import stopping

CHILD = """
import sys, time
from lightning_modules.running.stopping import end_with_the_first_process
end_with_the_first_process()
print("watching", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline().strip(), flush=True)
sys.exit()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_ends_with_the_one_that_started_it() -> None:
    """Whatever it waits for then; as if it had been stopped by SIGTERM."""
    environment = {**os.environ, "LOCAL_RANK": "1"}
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        environment.pop(name, None)
    first = subprocess.run([sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True, check=True)
    pid, word = first.stdout.split()
    assert word == "watching"
    status = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 20
    # A process that nobody waits for stays as a zombie where process 1 does not either.
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end, "it has outlived the process that started it"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("parent", "first", "is_orphan"),
    [
        (4711, b"/sbin/init\0", False),
        (1, b"/sbin/init\0", True),
        (1, b"python\0scripts/predict.py\0x.jpg\0", False),  # in a container, whose first process began the run
    ],
)
def test_an_orphan_ends_at_once(monkeypatch: pytest.MonkeyPatch, parent: int, first: bytes, is_orphan: bool) -> None:
    killed: list[tuple[int, int]] = []
    watchers: list[str] = []
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "argv", ["scripts/predict.py"])
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    monkeypatch.setattr(Path, "read_bytes", lambda path: first)
    monkeypatch.setattr(stopping.threading.Thread, "start", lambda thread: watchers.append(thread.name))
    stopping.end_with_the_first_process()
    assert killed == [(os.getpid(), signal.SIGTERM)] * is_orphan
    assert watchers == ["watch the first process"]
