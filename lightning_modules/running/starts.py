"""Which of the starts that Lightning offers leave a run here; the others are refused before the first image."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_modules.running.folder.run_folder import RunError

MOST_ON_A_CPU = 8
"""Processes for each CPU: as many as a test may want, far fewer than a slip of the keyboard asks for."""

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for each other at the end of a run."""

TRAINER_REFUSES = (TypeError, ValueError, RuntimeError, MemoryError, ImportError, MisconfigurationException)
"""What Lightning raises at options that do not fit."""


A_PART = "take --trainer.limit_test_batches to compute a part of the images"
WITHOUT_EFFECT_IN_A_TEST = {
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_predict_batches", "overfit_batches"), A_PART),
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps"), A_PART),
    "max_time": "start the run by the command timeout, at whose SIGTERM what is computed is written",
    **dict.fromkeys(("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"), ""),
    **dict.fromkeys(("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"), ""),
    **dict.fromkeys(("detect_anomaly", "inference_mode", "use_distributed_sampler", "sync_batchnorm"), ""),
    **dict.fromkeys(("log_every_n_steps", "enable_checkpointing", "enable_model_summary"), ""),
    **dict.fromkeys(("enable_autolog_hparams", "reload_dataloaders_every_n_epochs", "default_root_dir"), ""),
    "model_registry": "",
}
"""Options of Lightning's Trainer that its test loop, or ours in it, takes and ignores, and what to do instead."""

WITHOUT_EFFECT_IN_TRAINING = dict.fromkeys(("limit_test_batches", "limit_predict_batches"), "")


def refuse_what_has_no_effect(
    given: Mapping[str, Any], usual: Mapping[str, Any], without_effect: Mapping[str, str]
) -> None:
    """Asks that no option is given that would be ignored.

    Args:
        given: The Trainer's options.
        usual: Their defaults.
        without_effect: Those that would be ignored, and what to do instead.

    Raises:
        RunError: If one of them is not its default.
    """
    for name, instead in without_effect.items():
        if given.get(name) != usual.get(name):
            raise RunError(f"--trainer.{name} {given.get(name)} has no effect here: {instead or 'leave it out'}.")


def refuse_what_leaves_no_run(trainer: Trainer, devices: Any, first_look: str) -> None:
    """Asks that the run's rows, summary and figures come to be in this process.

    Args:
        trainer: Made of the user's options.
        devices: As the user gave them.
        first_look: The option that computes little.

    Raises:
        RunError: If they would in a child of it, in parts of a model, after a wait for nobody, or nowhere.
    """
    strategy = trainer.strategy
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise RunError(
            "trainer.strategy: what a spawned or forked process computes does not come back. Use ddp, or auto, which "
            "start scripts. In a notebook, where these cannot be started, take --trainer.devices 1."
        )
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise RunError(
            f"trainer.strategy {type(strategy).__name__}: here each device has the whole network and a share of the "
            "images. Use ddp, or auto."
        )
    n_devices = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdecimal() else 1
    if isinstance(strategy, SingleDeviceStrategy) and n_devices > 1:
        raise RunError(f"trainer.devices {devices}: this strategy has one. Leave trainer.strategy out, or use ddp.")
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        raise RunError(f"trainer.fast_dev_run leaves nothing behind. For a first look take {first_look}.")
    n_cpus = len(os.sched_getaffinity(0))
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > MOST_ON_A_CPU * n_cpus:
        raise RunError(
            f"trainer.devices {trainer.num_devices} on the CPU are as many processes, each of which has the whole "
            f"network and uses all CPUs. There are {n_cpus}; take at most that many."
        )
    if isinstance(strategy, DDPStrategy) and isinstance(strategy.cluster_environment, LightningEnvironment):
        _refuse_to_start_nothing(trainer)


def _refuse_to_start_nothing(trainer: Trainer) -> None:
    """Asks for what Lightning starts by itself: the other nodes' address, and a script for the other devices."""
    if trainer.num_nodes > 1 and "MASTER_ADDR" not in os.environ:
        raise RunError(
            f"trainer.num_nodes {trainer.num_nodes}: nothing says where the other nodes are. Start the command on each "
            "of them, under torchrun or srun."
        )
    is_module = getattr(sys.modules["__main__"], "__spec__", None) is not None
    if isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher) and not (
        is_module or Path(sys.argv[0]).is_file()
    ):
        raise RunError(
            f"trainer.devices {trainer.num_devices}: each further one starts the script anew that was started, and "
            f"{sys.argv[0]!r} is none. Write a script, or take --trainer.devices 1."
        )
