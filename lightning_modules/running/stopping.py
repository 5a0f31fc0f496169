"""The early end of a run, at a signal or when another of its processes has ended: saves, prints one sentence, exits.

Nothing unwinds then: an exception would come at any point of the libraries that are at work, each of which prints its
own, and not before a long computation is over. A background thread saves instead and ends the process, even if the main
thread is busy.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import torch

from lightning_modules.text import plain

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a time limit, the end of the terminal."""

SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_TO_WRITE = 10.0
"""How long the end waits for the other processes of the run to write what they have."""

SECONDS_TO_LEARN = 3.0
"""How long a process that failed waits: the reason may be that another one has ended, which then ends this one."""

OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""Errors of the file system that are the user's to mend."""

WRITTEN = "What was written is whole; the same command goes on from there."

FIRST_PROCESS = "VGG_LENS_FIRST_PROCESS"
"""The variable by which processes that Lightning starts know the number of the one that started them."""

_ending = threading.Lock()
"""Held, and never given back, by the thread that ends the process."""

_is_over = threading.Event()
_launched: list[subprocess.Popen[bytes]] = []
"""The other processes of the run that this one has started."""


class _Run:
    """The run that this process began last."""

    launcher: Any = None
    save: Callable[[], None] | None = None
    outlook: Callable[[], str] = str


def save_at_the_end(save: Callable[[], None] | None, outlook: Callable[[], str]) -> None:
    """Lets an early end call ``save``, and then print what ``outlook`` returns: what is written, how it goes on."""
    _Run.save, _Run.outlook = save, outlook


def take_over(launcher: Any) -> None:
    """Lets this process see to those that a Trainer's launcher starts.

    Lightning itself looks every five seconds whether one has ended, and kills all others: by SIGKILL, which saves
    nothing.
    """
    _Run.launcher = launcher


def listen() -> None:
    """From now on, a signal and the end of another process of the run end this one."""
    if threading.current_thread() is not threading.main_thread():
        return
    _is_over.clear()
    first = os.environ.get(FIRST_PROCESS) if _rank() else None
    os.environ[FIRST_PROCESS] = first or str(os.getpid())
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for signum in SIGNALS:
        if signal.getsignal(signum) != signal.SIG_IGN:  # as by nohup
            signal.signal(signum, _do_nothing)
    os.register_at_fork(after_in_child=_do_not_listen)
    threading.Thread(target=_watch, args=(reading, first), daemon=True, name="watch for the end").start()


def _do_nothing(signum: int, frame: Any) -> None:
    """The thread that watches learns of a signal by the wake-up descriptor."""


def _do_not_listen() -> None:
    """Of a worker, which the main process ends."""
    signal.set_wakeup_fd(-1)
    for signum in SIGNALS:
        if signal.getsignal(signum) is _do_nothing:
            signal.signal(signum, signal.SIG_IGN if signum == signal.SIGINT else signal.SIG_DFL)


def _watch(pipe: int, first: str | None) -> None:
    while True:
        heard = os.read(pipe, 64) if select.select([pipe], [], [], SECONDS_BETWEEN_LOOKS)[0] else b""
        for signum in {*heard}.intersection(SIGNALS):
            end(f"stopped by {signal.Signals(signum).name}.", 128 + signum)
        if first not in (None, str(os.getppid())):
            end("The first process of the run has ended.", 1, speaks=_rank() == 1)
        while started := getattr(_Run.launcher, "procs", []):
            _launched.append(started.pop(0))
        for rank, process in enumerate(_launched, start=1):
            if code := process.poll():
                _end_as(rank, code)


def _end_as(rank: int, code: int) -> NoReturn:
    if code - 128 in SIGNALS:
        end(f"stopped by {signal.Signals(code - 128).name}.", code)
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


def has_companions() -> bool:
    """Whether this process is one of several of a run."""
    return bool(_launched) or (torch.distributed.is_available() and torch.distributed.is_initialized())


def end(reason: str, code: int, *, speaks: bool | None = None, says_outlook: bool = True) -> NoReturn:
    """Saves what is held, ends what this process has started, prints one sentence, and ends the process.

    Args:
        reason: Why.
        code: The exit code.
        speaks: Whether this process prints it; None = the first one does.
        says_outlook: Whether the sentence also says how the run goes on.
    """
    if not _ending.acquire(blocking=False):  # another thread is at it
        threading.Event().wait()
    if _is_over.is_set():
        _ending.release()
        threading.Event().wait()
    stderr, outlook = _muted(), ""
    try:
        for process in _launched:
            process.send_signal(signal.SIGTERM)
        outlook = _saved()
    finally:  # whatever goes wrong at the end, it is said that this is one
        with suppress(OSError):
            if _rank() == 0 if speaks is None else speaks:
                words = f"{reason} {outlook}".rstrip() if says_outlook else reason
                os.write(stderr, f"{_line_and_cursor(stderr)}{words}\n".encode())
        os._exit(code)


def end_with_companions(reason: str, code: int) -> NoReturn:
    """Ends a process that failed, and is one of several, each of which prints an error when a connection is lost.

    Another one may be the cause; it ends this one meanwhile. What fails in all of them, the first one says.
    """
    if code == 1 or _rank():
        time.sleep(SECONDS_TO_LEARN)
    end(reason, code, speaks=True, says_outlook=False)


def finish() -> None:
    """The run has ended by itself: no signal ends it any more; where one is at it, this waits."""
    with _ending:
        _is_over.set()


def _rank() -> int:
    """Of this process, as its environment says it; Lightning learns it later."""
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")))
    return int(rank) if rank.isdecimal() else 0


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
    """Writes what is held, here and in the processes that this one has started; returns how the run goes on."""
    failure = ""
    try:
        if _Run.save is not None:
            _Run.save()
    except Exception as error:
        failure = f"What was computed last could not be written: {plain(str(error))}."
    for worker in multiprocessing.active_children():
        worker.kill()
    latest = time.monotonic() + SECONDS_TO_WRITE
    for process in _launched:
        try:
            process.wait(max(0.0, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    return f"{failure} {WRITTEN}" if failure else _Run.outlook()


def _line_and_cursor(stderr: int) -> str:
    """What ends the line of a progress bar, and shows the cursor, which it hides."""
    return "\n\x1b[?25h" if os.isatty(stderr) else ""
