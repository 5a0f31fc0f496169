"""Commands of our scripts that run side by side, each in a process of its own, and are told of one after the other."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO

import torch

from lightning_modules.running.cli import as_typed

SERVER = multiprocessing.get_context("forkserver")
PRELOADED = ["datamodules", "lightning_modules.running", "torch.utils.tensorboard", "scipy.stats", "timm"]
"""What a process finds imported when it starts; of these, what is not installed is passed over."""


@dataclass(frozen=True)
class Step:
    """A command, and what is said of it.

    Attributes:
        title: A few words.
        about: What is to be seen.
        words: Of the command: the file name of a script, and its options.
    """

    title: str
    about: str
    words: Sequence[str]

    @property
    def command(self) -> str:
        """The command as it is typed where ``scripts`` lies, an option a line."""
        script, *options = self.words
        return as_typed(["python", f"scripts/{script}", *options])

    @property
    def out(self) -> Path | None:
        """The folder that the command fills, if any."""
        return Path(self.words[self.words.index("--out") + 1]) if "--out" in self.words else None


@dataclass(frozen=True)
class Ended:
    """How a step ended: its exit code, and what it printed to either stream."""

    step: Step
    code: int
    stdout: str
    stderr: str


def run_steps(steps: Sequence[Step], scripts: Path, n_at_once: int | None = None) -> Generator[Ended, None, None]:
    """Runs steps side by side and gives how each ended, in their order. Whoever stops asking stops those that run.

    Args:
        steps: None may need what another one leaves.
        scripts: The folder of the scripts.
        n_at_once: How many run at a time, which share the CPUs; None = one for each CPU, but at most four.
    """
    cpus = len(os.sched_getaffinity(0))
    n_at_once = n_at_once or min(4, cpus, len(steps))
    columns = str(shutil.get_terminal_size((100, 24)).columns)
    SERVER.set_forkserver_preload(PRELOADED)
    started: list[ForkServerProcess] = []
    starting, nobody_asks = threading.Lock(), threading.Event()

    def ended(step: Step) -> Ended:
        # Files without a name: whatever ends this process, none is left behind.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            logs = [f"/proc/{os.getpid()}/fd/{log.fileno()}" for log in (stdout, stderr)]
            args = (step.words, str(scripts), logs, columns, max(1, cpus // n_at_once))
            process = SERVER.Process(target=_run, args=args)
            with starting:
                if nobody_asks.is_set():
                    return Ended(step, 128 + signal.SIGTERM, "", "")
                process.start()
                started.append(process)
            process.join()
            code = process.exitcode or 0
            return Ended(step, code if code >= 0 else 128 - code, _all_of(stdout), _all_of(stderr))

    pool = ThreadPoolExecutor(n_at_once)
    try:
        yield from pool.map(ended, steps)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        with starting:  # one that is starting just now is stopped too
            nobody_asks.set()
            for process in started:
                if process.is_alive():
                    process.terminate()
        pool.shutdown()


def _all_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def _run(words: Sequence[str], scripts: str, logs: Sequence[str], columns: str, n_threads: int) -> None:
    """Runs a script as if it had been typed; what it prints goes to two files."""
    _end_with_whoever_started_it()
    # The way in which this process was started is no wish of the command's: its workers start as anywhere else.
    multiprocessing.set_start_method(None, force=True)
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), number)
    torch.set_num_threads(n_threads)
    os.environ["COLUMNS"] = columns
    sys.path.insert(0, scripts)
    sys.argv = [f"scripts/{words[0]}", *words[1:]]
    script = importlib.import_module(Path(words[0]).stem)
    script.run_main(script.main)


def _end_with_whoever_started_it() -> None:
    """Makes this process end when the one that started it was killed, as if somebody had stopped it."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="watch the process that started this one").start()
