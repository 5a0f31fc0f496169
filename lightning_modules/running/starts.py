"""Which of the starts that Lightning offers leave a run here; the others are refused before the first image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_modules.running.folder.run_folder import RunError

LONGEST_WAIT = timedelta(days=7)
"""How long processes wait for each other at the end of a run: by default half an hour, which may be too short."""

TRAINER_REFUSES = (TypeError, ValueError, RuntimeError, MemoryError, ImportError, MisconfigurationException)
"""What Lightning raises at options that do not fit."""

WITHOUT_EFFECT_IN_A_TEST = (
    *("limit_train_batches", "limit_val_batches", "limit_predict_batches", "overfit_batches", "fast_dev_run"),
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time"),
    *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps", "inference_mode", "detect_anomaly"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "sync_batchnorm"),
    *("log_every_n_steps", "enable_checkpointing", "enable_model_summary", "enable_autolog_hparams"),
    *("use_distributed_sampler", "reload_dataloaders_every_n_epochs", "default_root_dir", "model_registry"),
)
"""Options of Lightning's Trainer that its test loop, or ours in it, takes and ignores."""

INSTEAD = (
    "leave it out; --trainer.limit_test_batches computes a part of the images, and the command timeout ends a run in "
    "time, with what is computed written"
)

WITHOUT_EFFECT_IN_TRAINING = ("limit_test_batches", "limit_predict_batches", "fast_dev_run")


def refuse_what_has_no_effect(
    given: Mapping[str, Any], usual: Mapping[str, Any], without_effect: Sequence[str]
) -> None:
    """Asks that no option of the Trainer is given that would be ignored, and no strategy whose rows do not come back.

    Args:
        given: The Trainer's options.
        usual: Their defaults.
        without_effect: Those that would be ignored.

    Raises:
        RunError: If one of them is not its default.
    """
    for name in without_effect:
        if given.get(name) != usual.get(name):
            raise RunError(f"--trainer.{name} {given.get(name)} has no effect here: {INSTEAD}.")
    if str(given.get("strategy")).endswith(("_spawn", "_fork", "_notebook")):
        raise RunError(
            f"--trainer.strategy {given.get('strategy')}: what a spawned or forked process computes does not come "
            "back. Use ddp, or auto, which start scripts."
        )


def refuse_what_leaves_no_run(trainer: Trainer) -> None:
    """Asks that each process has the whole network, and that the other nodes can be found.

    Raises:
        RunError: If not.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise RunError(
            f"trainer.strategy {type(strategy).__name__}: here each device has the whole network and a share of the "
            "images. Use ddp, or auto."
        )
    is_alone = isinstance(strategy, DDPStrategy) and isinstance(strategy.cluster_environment, LightningEnvironment)
    if trainer.num_nodes > 1 and is_alone and "MASTER_ADDR" not in os.environ:
        raise RunError(
            f"trainer.num_nodes {trainer.num_nodes}: nothing says where the other nodes are. Start the command on each "
            "of them, under torchrun or srun."
        )
