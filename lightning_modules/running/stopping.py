"""Stopping a run when it is told to: what is computed is written first."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


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

    It is sent SIGTERM, as if somebody had stopped the run. Only on Linux; torchrun and SLURM see to theirs.
    """
    elsewhere = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    if sys.platform != "linux" or elsewhere or os.environ.get("LOCAL_RANK", "0") == "0":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    # If that was too late, process 1 has taken over; but in a container that may be the one that started this one.
    if os.getppid() == 1 and os.path.basename(sys.argv[0]).encode() not in Path("/proc/1/cmdline").read_bytes():
        os.kill(os.getpid(), signal.SIGTERM)


class StopOnSignal(pl.Callback):
    """Ends the test loop at once on Ctrl-C and on SIGTERM, as SLURM sends it before a time limit.

    Lightning itself would test to the end first. Its ``on_exception`` lets the :class:`RowWriter` write what it holds.
    A process whose first process has died stops too.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.parent: int | None = None
        self.received: Stopped | None = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning starts the processes of a node from its first one; torchrun and SLURM do so from elsewhere.
        strategy: Any = trainer.strategy
        is_child = trainer.local_rank > 0 and isinstance(strategy.cluster_environment, LightningEnvironment)
        self.parent = os.getppid() if is_child else None
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
        if self.parent is not None and os.getppid() != self.parent:
            raise Stopped(signal.SIGTERM, trainer.global_rank)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)
        self.before = {}

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, Stopped):
            self.on_test_end(trainer, pl_module)
