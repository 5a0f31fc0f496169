from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from lightning_modules.running import stopping


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the thread that watches says at the end, and with which code."""

    def end(reason: str, code: int, *, speaks: bool | None = None) -> NoReturn:
        raise Ended(f"{code}: {reason}")

    def watch(heard: bytes = b"", first: str | None = None, codes: tuple[int | None, ...] = ()) -> str:
        reading, writing = os.pipe()
        os.write(writing, heard)
        launcher = SimpleNamespace(procs=[SimpleNamespace(poll=lambda code=code: code) for code in codes])
        monkeypatch.setattr(stopping._Run, "launcher", launcher)
        with pytest.raises(Ended) as ended:
            stopping._watch(reading, first)
        assert not launcher.procs  # or Lightning would kill them
        return str(ended.value)

    monkeypatch.setattr(stopping, "end", end)
    monkeypatch.setattr(stopping, "_launched", [])
    return watch


def test_what_ends_a_process(watch: Callable[..., str]) -> None:
    assert watch(bytes([signal.SIGCHLD, signal.SIGTERM])) == "143: stopped by SIGTERM."
    assert watch(first="1234567") == "1: The first process of the run has ended."
    assert watch(bytes([signal.SIGINT]), first=str(os.getppid())) == "130: stopped by SIGINT."


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ((None, -9), "1: Process 2 of the run was killed by signal 9, as where memory is short."),
        ((0, 1), "1: Process 2 of the run ended with exit code 1."),
        ((2, None), "2: Process 1 of the run ended with exit code 2."),
        ((143, None), "143: stopped by SIGTERM."),
    ],
)
def test_what_the_end_of_another_process_leads_to(
    watch: Callable[..., str], codes: tuple[int | None, ...], told: str
) -> None:
    assert watch(codes=codes) == told


def ended(act: Callable[[], object], folder: Path) -> tuple[int | None, str]:
    """The exit code of a process forked from this one, which listens and then does something; and what it says."""

    def listen_and_act() -> None:
        os.dup2(os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT), 2)
        stopping.save_at_the_end(None, str)  # not what a run of another test holds
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
        both = ended(lambda: signal_and(lambda: signal_and(wait, signal.SIGINT), signal.SIGINT), tmp_path)
        assert both == (130, "stopped by SIGINT.\n")

    def test_what_is_held_is_written(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.save_at_the_end((tmp_path / "rows").touch, lambda: f"{len(list(tmp_path.glob('rows')))} row.")
            signal_and(wait)

        assert ended(run, tmp_path) == (143, "stopped by SIGTERM. 1 row.\n")

    def test_what_goes_wrong_meanwhile_silences_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as a process that cannot be sent a signal."""

        class Odd:
            def poll(self) -> None:
                return None

            def send_signal(self, signum: int) -> None:
                raise ProcessLookupError

        monkeypatch.setattr(stopping, "_launched", [Odd()])
        assert ended(lambda: stopping.end("stopped by SIGINT.", 130), tmp_path) == (130, "stopped by SIGINT.\n")

    def test_an_error_of_one_of_several_is_said_alone(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.save_at_the_end((tmp_path / "rows").touch, lambda: "It goes on.")
            stopping.end_with_companions("error: a full disk.", 2)

        assert ended(run, tmp_path) == (2, "error: a full disk.\n")
        assert (tmp_path / "rows").exists()

    def test_what_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        def full() -> None:
            raise OSError(28, "No space left on device")

        def run() -> None:
            stopping.save_at_the_end(full, str)
            signal_and(wait)

        code, told = ended(run, tmp_path)
        assert code == 143
        assert told.startswith("stopped by SIGTERM. What was computed last could not be written: [Errno 28] No space")
        assert told.endswith(f"{stopping.WRITTEN}\n")

    def test_a_signal_that_is_ignored_stays_so(self, tmp_path: Path) -> None:
        """As by nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            assert ended(lambda: signal_and(lambda: time.sleep(0.3), signal.SIGHUP), tmp_path) == (0, "")
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_what_has_ended_by_itself_is_not_stopped(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.finish()
            signal_and(lambda: time.sleep(0.3))

        assert ended(run, tmp_path) == (0, "")

    def test_runs_one_after_the_other_in_one_process(self, tmp_path: Path) -> None:
        def run() -> None:
            stopping.finish()
            stopping.finish()
            stopping.listen()
            signal_and(wait)

        assert ended(run, tmp_path) == (143, "stopped by SIGTERM.\n")

    def test_with_the_process_that_started_it(self, tmp_path: Path) -> None:
        """Also where that one has ended before this one listens."""

        def first() -> None:
            if os.fork():
                os._exit(0)
            os.environ["LOCAL_RANK"] = "1"
            stopping.listen()
            wait()

        ended(first, tmp_path)
        latest = time.monotonic() + 60
        while "The first process of the run has ended.\n" not in (tmp_path / "stderr").read_text():
            assert time.monotonic() < latest, "it has outlived the process that started it"
            time.sleep(0.05)
