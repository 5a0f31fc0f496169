"""Runs of the scripts in processes of their own that start fast: forked from one that has imported everything."""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["evaluate_attribution", "evaluate_robustness", "maximize_activation", "predict", "pack_shards", "train_classifier"]
)


def _start_server() -> None:
    # The server finds what it imports beforehand by its environment alone, and ignores what it does not find.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()


class Run:
    """A script that runs in ``world`` processes, as torchrun starts them.

    Args:
        script: Its name; one of ours, or of a module with ``main`` and ``run_main`` in ``folder``.
        args: Its options.
        folder: Where it runs, and where what it prints goes.
        world: Number of processes; 1 leaves the number of devices to the script.
        rows_per_part: Rows after which a part is written, so that a small run has several parts.
        largest_file: Bytes beyond which no file can be written, as if the disk were full; None = no limit.
        narrow: Whether it has a /dev/shm of 16 MB and 256 open files.
    """

    def __init__(
        self,
        script: str,
        args: Sequence[object],
        folder: Path,
        world: int = 1,
        rows_per_part: int = 8192,
        largest_file: int | None = None,
        narrow: bool = False,
    ) -> None:
        _start_server()
        self.logs = folder / "stdout.txt", folder / "stderr.txt"
        for log in self.logs:
            log.write_text("")
        common = (
            script,
            [str(arg) for arg in args],
            str(folder),
            [str(log) for log in self.logs],
            rows_per_part,
            largest_file,
            narrow,
        )
        self.processes: list[ForkServerProcess] = [
            SERVER.Process(target=_run, args=(*common, environment)) for environment in _environments(world)
        ]
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 250) -> list[int | None]:
        """Waits for all processes; returns their exit codes."""
        for process in self.processes:
            process.join(timeout)
            if process.is_alive():
                self.kill(signal.SIGKILL)
                raise TimeoutError(f"still running after {timeout} s: {self.output()}")
        return [process.exitcode for process in self.processes]

    def has_ended(self) -> bool:
        return not any(process.is_alive() for process in self.processes)

    def kill(self, signum: int) -> None:
        """Sends a signal to all processes and their workers, as a terminal, SLURM or a crashing machine does."""
        for process in self.processes:
            with suppress(ProcessLookupError):  # it has ended, or has not begun: then there is nothing to stop
                os.killpg(process.pid or 0, signum)
            process.join(0)

    def output(self) -> str:
        return "".join(log.read_text() for log in self.logs)


def complete(script: str, args: Sequence[object], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end; the exit code is that of the first process."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(script, args, folder, **options)
    code = run.wait()[0]
    stdout, stderr = (log.read_text() for log in run.logs)
    return subprocess.CompletedProcess([script, *map(str, args)], code or 0, stdout, stderr)


def make_narrow() -> None:
    """Gives this process and those that it starts a /dev/shm of 16 MB, and 256 open files.

    Raises:
        OSError: If the system does not allow it, as to a user who is not root.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    new_mounts, for_all_below = 0x00020000, 0x00044000  # CLONE_NEWNS; MS_PRIVATE | MS_REC
    for failed in (
        libc.unshare(new_mounts),
        libc.mount(b"none", b"/", None, ctypes.c_ulong(for_all_below), None),
        libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(0), b"size=16m"),
    ):
        if failed:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _environments(world: int) -> list[Mapping[str, str]]:
    if world == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    common |= {"GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "test"}
    return [
        {name: str(value) for name, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
        for rank in range(world)
    ]


def _run(
    script: str,
    args: list[str],
    folder: str,
    logs: Sequence[str],
    rows_per_part: int,
    largest_file: int | None,
    narrow: bool,
    environment: Mapping[str, str],
) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # for its workers, as in a script that was started by hand
    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(folder)
    os.environ |= {"COLUMNS": "200", "PYTHONPATH": str(SCRIPTS.parent), **environment}
    sys.path.insert(0, folder)
    sys.argv = [str(SCRIPTS / f"{script}.py"), *args]

    import torch

    from lightning_modules.running import writer

    torch.set_num_threads(1)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    if narrow:
        make_narrow()
    writer.ROWS_PER_PART = rows_per_part
    module: Any = importlib.import_module(script)
    module.run_main(module.main)
