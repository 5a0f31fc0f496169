"""Stopping a run when it is told to: what is computed is written first."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SECONDS_BETWEEN_LOOKS = 0.5


class Stopped(BaseException):
    """A run that was stopped by a signal. Not an Exception: nobody on the way should take it for an error of theirs.

    Attributes:
        signum: The signal.
        rank: Of the process that was stopped.
    """

    def __init__(self, signum: int, rank: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum
        self.rank = rank


def end_with_the_first_process() -> None:
    """Makes a process that Lightning started end when the one that started it does, at whatever it waits for then.

    It sends itself SIGTERM, as if somebody had stopped the run. torchrun and SLURM see to theirs.
    """
    elsewhere = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    if elsewhere or os.environ.get("LOCAL_RANK", "0") == "0":
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    if _was_orphaned_before(parent):
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=watch, daemon=True, name="watch the first process").start()


def _was_orphaned_before(parent: int) -> bool:
    """Whether the process that started this one had ended already, so that process 1 has taken over.

    In a container, process 1 may be the one that started it.
    """
    command = Path("/proc/1/cmdline")
    return parent == 1 and command.exists() and os.path.basename(sys.argv[0]).encode() not in command.read_bytes()


class StopOnSignal(pl.Callback):
    """Ends the test loop at once on Ctrl-C and on SIGTERM, as SLURM sends it before a time limit.

    Lightning itself would test to the end first. Its ``on_exception`` lets the ``RunWriter`` write what it holds.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.received: Stopped | None = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        strategy: Any = trainer.strategy
        if threading.current_thread() is not threading.main_thread():
            return

        def stop(signum: int, frame: Any) -> None:
            for name in SIGNALS:
                signal.signal(name, signal.SIG_IGN)
            if hasattr(strategy.launcher, "kill"):
                strategy.launcher.kill(signum)
            self.received = Stopped(signum, trainer.global_rank)
            raise self.received

        self.before = {name: signal.signal(name, stop) for name in SIGNALS}

    def on_test_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if self.received:  # Python swallows what is raised in a destructor
            raise self.received

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)
        self.before = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Stopped):
            self.on_test_end(trainer, pl_module)
