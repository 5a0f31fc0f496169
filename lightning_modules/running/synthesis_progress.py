"""What a run of activation maximization shows while it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_modules.evaluation import EvaluationModule
from lightning_modules.results.report import CURVES, tag
from lightning_modules.synthesis import Progress, total_variation
from lightning_modules.text import in_rich_markup


class SynthesisProgress(pl.Callback):
    """Shows a step's optimization while it runs: in the progress bar and in TensorBoard.

    TensorBoard gets the activation and total variation as curves, and the image as it grows, of the first images that
    the first rank makes: of as many as the module draws figures of.

    Args:
        curve_every: Steps between two points of the curves.
        n_snapshots: Snapshots of each image.
    """

    def __init__(self, curve_every: int = 8, n_snapshots: int = 8) -> None:
        self.curve_every = curve_every
        self.n_snapshots = n_snapshots
        self.shown: list[str] = []
        self.task: Any = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.listeners = [partial(self.on_synthesis_step, trainer)]  # type: ignore[assignment]

    def on_synthesis_step(self, trainer: pl.Trainer, names: Sequence[str], progress: Progress, steps: int) -> None:
        """Called by the module after each step of an optimization of ``names``, in order, of ``steps`` steps in all."""
        if not trainer.is_global_zero:
            return
        last = progress.step == steps
        # Reading the numbers makes a GPU wait, so not at each step.
        if last or progress.step == 1 or progress.step % self.curve_every == 0:
            self._update_bar(trainer, names, progress, steps)
            self._log(trainer, names, progress, steps)

    def _update_bar(self, trainer: pl.Trainer, names: Sequence[str], progress: Progress, steps: int) -> None:
        bar = trainer.progress_bar_callback
        if not isinstance(bar, RichProgressBar) or bar.progress is None:
            return
        text = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
        description = in_rich_markup(f"{text}: activation {float(progress.activation.mean()):.2f}")
        # The bar counts steps, within the batch that Lightning's own bar counts.
        if self.task not in bar.progress.task_ids:
            self.task = bar.progress.add_task(description, total=steps)
        bar.progress.update(self.task, completed=progress.step, total=steps, description=description)
        bar.refresh()

    def _log(self, trainer: pl.Trainer, names: Sequence[str], progress: Progress, steps: int) -> None:
        snapshot = progress.step == steps or progress.step % max(self.curve_every, steps // self.n_snapshots) == 0
        variation = total_variation(progress.images)
        module = trainer.lightning_module
        most = module.n_figures if isinstance(module, EvaluationModule) else 0
        for i, name in enumerate(names):
            if name not in self.shown and len(self.shown) < most:
                self.shown.append(name)
            if name not in self.shown:
                continue
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    board = logger.experiment
                    board.add_scalar(
                        tag(f"{CURVES}_over_steps", "activation", name), float(progress.activation[i]), progress.step
                    )
                    board.add_scalar(
                        tag(f"{CURVES}_over_steps", "total_variation", name), float(variation[i]), progress.step
                    )
                    if snapshot:
                        board.add_image(tag("6_growing", name), progress.images[i].float().cpu(), progress.step)
