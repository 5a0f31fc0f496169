"""Stopping a run when it is told to, or when one of its processes dies: what is computed is written first.

Nothing unwinds then. An exception would come at any point of the libraries that are at work, each of which prints its
own, and not before a long computation is over. A thread instead writes the rows that are held, says one sentence, and
ends the process at whatever the main thread is.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from lightning_modules.escaping import plain

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a time limit, the end of the terminal."""

SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_TO_WRITE = 10.0
"""How long the end waits for a part that is being written, and for the other processes to write theirs."""

SECONDS_TO_BE_TOLD = 3.0
"""How long a process that has lost another one waits to be told which, and how it ended."""

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors of the file system that are the user's to mend."""

WRITTEN = "What was written is whole; the same command goes on from there."
COMPUTED = "What was computed is written; the same command goes on from there."

_writing = threading.RLock()
_ending = threading.Lock()
_launched: list[subprocess.Popen[bytes]] = []
_is_over = threading.Event()


class _Held:
    """What is to be done and said at the end; of the last run that this process began."""

    save: Callable[[], None] | None = None
    told = ""


def save_before_the_end(save: Callable[[], None]) -> None:
    """Lets the end of this process call a function that writes what is held, and say that the run can go on."""
    _Held.save, _Held.told = save, COMPUTED


def say_at_the_end(told: str) -> None:
    """Lets the end of this process say how the run goes on."""
    _Held.save, _Held.told = None, told


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is done here to the rows that are held is done before they are written at the end."""
    with _writing:
        yield


def listen() -> None:
    """From now on, a signal and the death of another process of the run end this one, in one sentence."""
    if threading.current_thread() is not threading.main_thread():
        return
    subprocess_script._launch_process_observer = _watch_launched  # in place of one that kills this process
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # as by nohup
            signal.signal(signum, _do_nothing)
    os.register_at_fork(after_in_child=_do_not_listen)
    threading.Thread(target=_hear, args=(reading,), daemon=True, name="hear signals").start()
    _end_with_the_first_process()


def _do_nothing(signum: int, frame: Any) -> None:
    """A signal has been told to the thread that hears them."""


def _do_not_listen() -> None:
    """Of a worker: the main process ends it."""
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        if signal.getsignal(signum) is _do_nothing:
            signal.signal(signum, signal.SIG_IGN if signum == signal.SIGINT else signal.SIG_DFL)


def _hear(pipe: int) -> None:
    while True:
        for signum in os.read(pipe, 1):
            if signum in SIGNALS and signal.getsignal(signum) != signal.SIG_IGN:
                end(f"stopped by {signal.Signals(signum).name}.", 128 + signum)


def is_over() -> None:
    """The run has ended by itself, and has said how."""
    _is_over.set()


def has_companions() -> bool:
    """Whether this process is one of several of a run."""
    return bool(_launched) or (torch.distributed.is_available() and torch.distributed.is_initialized())


def end(told: str, code: int, *, speaks: bool | None = None) -> NoReturn:
    """Writes what is held, ends what this process has started, says one sentence, and ends the process.

    Args:
        told: Why.
        code: The exit code.
        speaks: Whether this process says it; None = the first one does.
    """
    if not _ending.acquire(blocking=False):  # another thread is at it
        threading.Event().wait()
    speaks = _rank() == 0 if speaks is None else speaks
    stderr, how = _muted(), ""
    try:
        for process in _launched:
            process.send_signal(signal.SIGTERM)
        how = _saved()
        for worker in multiprocessing.active_children():
            worker.kill()
        _wait_for_launched()
    finally:  # whatever goes wrong at the end, it is said that this is one
        with suppress(OSError):
            if speaks:
                said = told if "the same command goes on" in told.lower() else f"{told} {how}".rstrip()
                os.write(stderr, f"{_line_and_cursor(stderr)}{said}\n".encode())
        os._exit(code)


def wait_if_it_ends() -> None:
    """Keeps the main thread from ending the process while another thread does."""
    if _ending.locked():
        threading.Event().wait()


def _rank() -> int:
    """Of this process, as soon as its environment says it; Lightning learns it later."""
    told = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    return getattr(rank_zero_only, "rank", 0) or (int(told) if told.isdecimal() else 0)


def _muted() -> int:
    """Lets nothing be printed any more, by whatever library; returns where errors went."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    return stderr


def _saved() -> str:
    """Writes what is held; returns how the run goes on."""
    if _Held.save is None:
        return _Held.told
    if not _writing.acquire(timeout=SECONDS_TO_WRITE):  # of a file system that does not answer
        return WRITTEN
    try:
        _Held.save()
    except Exception as error:
        return f"What was computed last could not be written: {plain(str(error))}. {WRITTEN}"
    return _Held.told


def _line_and_cursor(stderr: int) -> str:
    """What ends the line of a progress bar, and shows the cursor, which it hides."""
    return "\n\x1b[?25h" if os.isatty(stderr) else ""


def _wait_for_launched() -> None:
    end = time.monotonic() + SECONDS_TO_WRITE
    for process in _launched:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def end_if_another_has(error: BaseException) -> None:
    """Ends this process if the error came of the end of another one, which says so here as a connection that is lost.

    Returns if it is an error of its own.
    """
    if not has_companions():
        return
    # The threads that watch the others know more, and end this process.
    _is_over.wait(SECONDS_TO_BE_TOLD)
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset", "Broken pipe")
    if isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in words):
        # Rank 1 as well: rank 0 may be the one that has ended.
        end("Another process of the run has ended, or cannot be reached.", 1, speaks=_rank() < 2)


def _watch_launched(child_processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Watches the processes that Lightning has started, in place of its own observer."""
    _launched[:] = child_processes

    def watch() -> None:
        while any(process.poll() is None for process in child_processes):
            _look_at_launched()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        _look_at_launched()

    threading.Thread(target=watch, daemon=True, name="watch the other processes").start()


def _look_at_launched() -> None:
    for rank, process in enumerate(_launched, start=1):
        if code := process.poll():
            stopped = {128 + signum: signal.Signals(signum).name for signum in SIGNALS}.get(code)
            if stopped:
                end(f"stopped by {stopped}.", code)
            end(f"Process {rank} of the run {_how_it_ended(code)}.", 2 if code == 2 else 1)


def _how_it_ended(code: int) -> str:
    """What the exit code of a process says.

    Example:
        >>> _how_it_ended(-9), _how_it_ended(1)
        ('was killed by signal 9, as where memory is short', 'ended with exit code 1')
    """
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by signal {-code}" + ", as where memory is short" * (code == -signal.SIGKILL)


def _end_with_the_first_process() -> None:
    """Makes a process that Lightning started end when the one that started it does; others see to their own."""
    elsewhere = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    rank = os.environ.get("LOCAL_RANK", "0")
    if elsewhere or rank == "0":
        return
    parent = os.getppid()

    def ended() -> None:
        end("The first process of the run has ended.", 1, speaks=rank == "1" and not _is_over.is_set())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        ended()

    if _was_orphaned_before(parent):
        ended()
    threading.Thread(target=watch, daemon=True, name="watch the first process").start()


def _was_orphaned_before(parent: int) -> bool:
    """Whether the process that started this one had ended already, so that process 1 has taken over.

    In a container, process 1 may be the one that started it.
    """
    command = Path("/proc/1/cmdline")
    return parent == 1 and command.exists() and os.path.basename(sys.argv[0]).encode() not in command.read_bytes()
