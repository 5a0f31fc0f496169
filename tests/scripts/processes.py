"""Runs of the scripts in processes of their own that start fast: forked from one that has imported everything."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _while_importing
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
        nodes: Number of nodes that these are shared out to.
        rows_per_part: Rows after which a part is written, so that a small run has several parts.
        largest_file: Bytes beyond which no file can be written, as if the disk were full; None = no limit.
    """

    def __init__(
        self,
        script: str,
        args: Sequence[object],
        folder: Path,
        world: int = 1,
        nodes: int = 1,
        rows_per_part: int = 8192,
        largest_file: int | None = None,
    ) -> None:
        _start_server()
        self.logs = folder / "stdout.txt", folder / "stderr.txt"
        self.marks = [folder / f"begun_{rank}" for rank in range(world)]
        for log in self.logs:
            log.write_text("")
        for mark in self.marks:
            mark.unlink(missing_ok=True)
        common = (
            script,
            [str(arg) for arg in args],
            str(folder),
            [str(log) for log in self.logs],
            rows_per_part,
            largest_file,
        )
        self.processes: list[ForkServerProcess] = [
            SERVER.Process(target=_run, args=(*common, environment)) for environment in _environments(world, nodes)
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

    def has_begun(self) -> bool:
        """Whether signals go to the script; before, they go to Python, which starts it."""
        return all(mark.exists() for mark in self.marks)

    def family(self) -> list[int]:
        """The numbers of all its processes, the workers and those that Lightning started too."""
        return [pid for process in self.processes if process.pid for pid in (process.pid, *descendants(process.pid))]

    def kill(self, signum: int) -> None:
        """Sends a signal to all processes and their workers, as a terminal, SLURM or a crashing machine does."""
        for process in self.processes:
            with suppress(ProcessLookupError):  # it has ended, or has not begun: then there is nothing to stop
                os.killpg(process.pid or 0, signum)
            process.join(0)

    def output(self) -> str:
        return "".join(log.read_text() for log in self.logs)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, those that they have started, and so on."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [other for child in children for other in descendants(child)]


class Forked:
    """In place of the process that Lightning starts for another device, which imports for ten seconds.

    It is a child of the first one, as that is, and has what a Popen has.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: str | None = None) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            Path("launched").write_text(str(self.pid))
            return
        code: Any = 1
        try:
            os.environ |= env
            rank_zero_only = importlib.import_module("pytorch_lightning.utilities.rank_zero").rank_zero_only
            rank_zero_only.rank = int(env["LOCAL_RANK"])
            _run_script(Path(command[1]).stem)
        except SystemExit as error:
            code = error.code or 0
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG) if self.returncode is None else (0, 0)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked", timeout)
            time.sleep(0.01)

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # another thread has asked how it ended meanwhile, as in a Popen
                os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run_script(script: str) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):  # as where the script itself imports
        signal.signal(signum, _while_importing._end)
    Path(f"begun_{os.environ.get('RANK', '0')}").touch()
    module: Any = importlib.import_module(script)
    module.run_main(module.main)


def complete(script: str, args: Sequence[object], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script to its end; the exit code is that of the first process."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(script, args, folder, **options)
    code = run.wait()[0]
    stdout, stderr = (log.read_text() for log in run.logs)
    return subprocess.CompletedProcess([script, *map(str, args)], code or 0, stdout, stderr)


def _environments(world: int, nodes: int) -> list[Mapping[str, str]]:
    if world == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    of_node = world // nodes
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": of_node}
    common |= {"TORCHELASTIC_RUN_ID": "test"}
    ranks = [{"RANK": rank, "GROUP_RANK": rank // of_node, "LOCAL_RANK": rank % of_node} for rank in range(world)]
    return [{name: str(value) for name, value in {**common, **each}.items()} for each in ranks]


def _run(
    script: str,
    args: list[str],
    folder: str,
    logs: Sequence[str],
    rows_per_part: int,
    largest_file: int | None,
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

    from lightning_modules.running.folder import writer

    torch.set_num_threads(1)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    writer.ROWS_PER_PART = rows_per_part
    launcher: Any = importlib.import_module("pytorch_lightning.strategies.launchers.subprocess_script")
    launcher.subprocess = SimpleNamespace(Popen=Forked)
    _run_script(script)
