from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from lightning_modules.running import stopping

CHILD = """
import sys, time
from lightning_modules.running.stopping import listen
listen()
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
    """Whatever it waits for then."""
    environment = {**os.environ, "LOCAL_RANK": "1"}
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        environment.pop(name, None)
    first = subprocess.run([sys.executable, "-c", PARENT], env=environment, capture_output=True, text=True, check=True)
    pid, word = first.stdout.split()
    assert word == "watching"
    assert first.stderr == "The first process of the run has ended.\n"
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
    ended: list[str] = []
    watchers: list[str] = []
    for name in ("GROUP_RANK", "TORCHELASTIC_RUN_ID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(sys, "argv", ["scripts/predict.py"])
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.setattr(stopping, "end", lambda told, code, speaks: ended.append(told))
    monkeypatch.setattr(Path, "read_bytes", lambda path: first)
    monkeypatch.setattr(stopping.threading.Thread, "start", lambda thread: watchers.append(thread.name))
    stopping._end_with_the_first_process()
    assert ended == ["The first process of the run has ended."] * is_orphan
    assert watchers == ["watch the first process"]


def ended(act: Callable[[], object], folder: Path) -> tuple[int | None, str]:
    """The exit code of a process forked from this one, which listens and then does something; and what it says."""

    def listen_and_act() -> None:
        os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), 2)
        stopping.say_at_the_end("")  # not what a run of another test holds
        stopping.listen()
        act()

    process = get_context("fork").Process(target=listen_and_act)
    process.start()
    process.join(60)
    return process.exitcode, (folder / "stderr").read_text()


def signal_and(act: Callable[[], object], signum: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), signum)
    act()


def wait() -> None:
    time.sleep(60)


@pytest.mark.process
class TestEnd:
    def test_in_a_sentence(self, tmp_path: Path) -> None:
        assert ended(lambda: signal_and(wait, signal.SIGHUP), tmp_path) == (129, "stopped by SIGHUP.\n")

    def test_by_two_signals(self, tmp_path: Path) -> None:
        code = "stopped by SIGINT.\n"
        assert ended(lambda: signal_and(lambda: signal_and(wait, signal.SIGINT), signal.SIGINT), tmp_path) == (
            130,
            code,
        )

    def test_what_is_held_is_written(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.save_before_the_end((tmp_path / "rows").touch)
            signal_and(wait)

        assert ended(run, tmp_path) == (143, f"stopped by SIGTERM. {stopping.COMPUTED}\n")
        assert (tmp_path / "rows").exists()

    def test_what_goes_wrong_meanwhile_silences_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as a process that cannot be sent a signal."""

        class Odd:
            def send_signal(self, signum: int) -> None:
                raise ProcessLookupError

        monkeypatch.setattr(stopping, "_launched", [Odd()])
        assert ended(lambda: stopping.end("stopped by SIGINT.", 130), tmp_path) == (130, "stopped by SIGINT.\n")

    def test_how_it_goes_on_is_said_once(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.say_at_the_end("The same command goes on from the start.")
            stopping.end(f"error: a full disk. {stopping.WRITTEN}", 2, speaks=True)

        assert ended(run, tmp_path) == (2, f"error: a full disk. {stopping.WRITTEN}\n")

    def test_what_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        def full() -> None:
            raise OSError(28, "No space left on device")

        def run() -> None:
            stopping.save_before_the_end(full)
            signal_and(wait)

        code, told = ended(run, tmp_path)
        assert code == 143
        assert told.startswith("stopped by SIGTERM. What was computed last could not be written: [Errno 28] No space")

    def test_not_in_the_middle_of_what_is_held(self, tmp_path: Path) -> None:
        rows: list[int] = []

        def run() -> None:
            stopping.save_before_the_end(lambda: (tmp_path / "rows").write_text(str(rows)))
            with stopping.undisturbed():
                rows.append(1)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.3)  # the end has come to where it waits
                rows.append(2)
            wait()

        assert ended(run, tmp_path)[0] == 143
        assert (tmp_path / "rows").read_text() == "[1, 2]"

    def test_a_signal_that_is_ignored_stays_so(self, tmp_path: Path) -> None:
        """As by nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert ended(lambda: signal_and(lambda: time.sleep(0.3), signal.SIGHUP), tmp_path) == (0, "")
        finally:
            signal.signal(signal.SIGHUP, before)
