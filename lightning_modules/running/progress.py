"""What a run shows while it goes on: images, passes of the network, how long the rest will take, how images grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.results.report import CURVES, tag
from lightning_modules.synthesis import Progress, total_variation

MANY_PASSES = 100
"""Of an image: its passes are counted for the reader from here on."""

SECONDS_BETWEEN_LINES = 15.0
"""At least; later lines come when a tenth of the time has passed again."""


class RunProgress(pl.Callback):
    """Counts images and, of slow ones, passes of the network, in lines, where a progress bar is wanted.

    Args:
        clock: Seconds, from whenever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.n_images: int | None = None
        self.n_done = self.n_of_batch = self.n_passes = 0
        self.hook: Any = None

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, EvaluationModule)
        n_left = pl_module.n_to_compute()
        if n_left is None or trainer.progress_bar_callback is None or not trainer.is_global_zero:
            return
        self.n_images = -(-n_left // trainer.world_size)
        passes = pl_module.passes()
        self.passes_per_image: float = 1 + sum(passes.values())
        if self.passes_per_image >= MANY_PASSES and n_left:
            print(_announced(passes, n_left))
        self.began = self.clock()
        self.next_look = self.began + SECONDS_BETWEEN_LINES
        if not pl_module.network.is_compiled:

            def count(module: nn.Module, images: tuple[Any, ...]) -> None:
                self.n_passes += len(images[0])
                self._show(trainer)

            # A function, not a method: a copy of the network, as metrics make, counts here too.
            self.hook = pl_module.network.original.register_forward_pre_hook(count)

    def on_part_end(self, trainer: pl.Trainer, outputs: Outputs, batch: Any, n_images: int) -> None:
        """Called by the module when ``n_images`` of a batch have their rows, unless they are the last."""
        self.n_of_batch += n_images
        self._finish(trainer, self.n_done + n_images)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        n_left = len(batch["path"]) + len(batch.get("failed", ())) - self.n_of_batch
        self.n_of_batch = 0
        self._finish(trainer, self.n_done + n_left)

    def _finish(self, trainer: pl.Trainer, n_done: int) -> None:
        if self.n_passes and n_done > self.n_done:  # what a method says of its passes may not be exact
            self.passes_per_image = self.n_passes / (n_done - self.n_done)
        self.n_done, self.n_passes = n_done, 0
        self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        module, now = trainer.lightning_module, self.clock()
        if self.n_images is None or self.n_done >= self.n_images or now < self.next_look:
            return
        assert isinstance(module, EvaluationModule)
        print(self.text(now, module.n_in_hand), flush=True)
        self.next_look = now + max(SECONDS_BETWEEN_LINES, (now - self.began) / 10)

    def text(self, now: float, n_in_hand: int) -> str:
        """How far the run is, of which ``n_in_hand`` images are being computed, and how long the rest will take."""
        assert self.n_images is not None
        begun = min(self.n_passes / self.passes_per_image, n_in_hand)
        text = f"{self.n_done:,} of {self.n_images:,} images"
        if self.passes_per_image >= MANY_PASSES and self.n_passes:
            n = f"{self.n_passes:,} of {self.passes_per_image * n_in_hand:,.0f} passes"
            text += f", {n} of the next {n_in_hand}" if n_in_hand > 1 else f", {n} of the next"
        if self.n_done:
            seconds = (now - self.began) * (self.n_images - self.n_done - begun) / (self.n_done + begun)
            text += f"; about {duration(max(0.0, seconds))} left"
        return text

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.hook is not None:
            self.hook.remove()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "test")


def _announced(passes: dict[str, int], n_images: int) -> str:
    """What a run is going to cost, in a sentence."""
    most = sorted(passes.items(), key=lambda each: -each[1])[:3]
    names = ", ".join(f"{name} {n:,}" for name, n in most if n)
    total = 1 + sum(passes.values())
    return (
        f"Each image takes about {total:,} passes of the network ({names}): {n_images * total:,} for {n_images:,} "
        f"image{'s' * (n_images > 1)}. The first one will show how long that takes."
    )


def duration(seconds: float) -> str:
    """A time in the unit that fits.

    Example:
        >>> duration(40), duration(100), duration(5400), duration(200_000)
        ('40 s', '2 min', '1.5 h', '2.3 days')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 86_400 else f"{seconds / 86_400:.1f} days"


class SynthesisProgress(pl.Callback):
    """Shows in TensorBoard how images grow: activation and total variation as curves, and the image itself.

    Of the first images that the first rank makes: of as many as the module draws figures of.

    Args:
        curve_every: Steps between two points of the curves.
        n_snapshots: Snapshots of each image.
    """

    def __init__(self, curve_every: int = 8, n_snapshots: int = 8) -> None:
        self.curve_every = curve_every
        self.n_snapshots = n_snapshots
        self.shown: list[str] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            pl_module.listeners = [partial(self.on_synthesis_step, trainer)]  # type: ignore[assignment]

    def on_synthesis_step(self, trainer: pl.Trainer, names: Sequence[str], progress: Progress, steps: int) -> None:
        """Called by the module after each step of an optimization of ``names``, in order, of ``steps`` steps in all."""
        step, module = progress.step, trainer.lightning_module
        # Reading the numbers makes a GPU wait, so not at each step.
        if step not in (1, steps) and step % self.curve_every:
            return
        assert isinstance(module, EvaluationModule)
        new = [name for name in names if name not in self.shown]
        self.shown += new[: max(0, module.n_figures - len(self.shown))]
        is_snapshot = step == steps or step % max(self.curve_every, steps // self.n_snapshots) == 0
        values = {"activation": progress.activation, "total_variation": total_variation(progress.images)}
        for logger in [each for each in trainer.loggers if isinstance(each, TensorBoardLogger)]:
            for i, name in [each for each in enumerate(names) if each[1] in self.shown]:
                for what, value in values.items():
                    logger.experiment.add_scalar(tag(f"{CURVES}_over_steps", what, name), float(value[i]), step)
                if is_snapshot:
                    logger.experiment.add_image(tag("6_growing", name), progress.images[i].float().cpu(), step)
