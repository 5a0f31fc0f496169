"""What a run of activation maximization shows while it goes on, and the images and sheets that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_modules.figures.style import shorten
from lightning_modules.figures.synthesis import Tile, ablation_figure, contact_sheet
from lightning_modules.results.files import FigureFormat, save_figure
from lightning_modules.results.report import CURVES, tag
from lightning_modules.results.rows import read_rows
from lightning_modules.synthesis import VARIANTS, Progress, total_variation

TILES_PER_SHEET = 48
ABLATION_COLUMNS = 8
NUMBERS = {"probability": "p", "probability_shifted": "p shifted", "activation": "activation", "total_variation": "TV"}
"""Columns of the rows that stand beside the ablation, and what they are called there."""


class SynthesisProgress(pl.Callback):
    """Shows a step's optimization while it runs: in the progress bar and in TensorBoard.

    TensorBoard gets the activation and total variation as curves, and the image as it grows, of the first images that
    the first rank makes.

    Args:
        n_images: Images that go to TensorBoard, at least 0.
        curve_every: Steps between two points of the curves.
        n_snapshots: Snapshots of each image.

    Example:
        >>> trainer = pl.Trainer(callbacks=[SynthesisProgress(n_images=4)], logger=False)
    """

    def __init__(self, n_images: int, curve_every: int = 8, n_snapshots: int = 8) -> None:
        self.n_images = n_images
        self.curve_every = curve_every
        self.n_snapshots = n_snapshots
        self.shown: list[str] = []
        self.task: Any = None

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
        description = f"{text}: activation {float(progress.activation.mean()):.2f}"
        # The bar counts steps, within the batch that Lightning's own bar counts.
        if self.task not in bar.progress.task_ids:
            self.task = bar.progress.add_task(description, total=steps)
        bar.progress.update(self.task, completed=progress.step, total=steps, description=description)
        bar.refresh()

    def _log(self, trainer: pl.Trainer, names: Sequence[str], progress: Progress, steps: int) -> None:
        snapshot = progress.step == steps or progress.step % max(self.curve_every, steps // self.n_snapshots) == 0
        variation = total_variation(progress.images)
        for i, name in enumerate(names):
            if name not in self.shown and len(self.shown) < self.n_images:
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


class ImageWriter(pl.Callback):
    """Writes the images that ``test_step`` returns, by their file names, to ``folder``; each aside and then renamed.

    Args:
        folder: Where the PNG files go.

    Example:
        >>> trainer = pl.Trainer(callbacks=[ImageWriter(Path("run/images"))], logger=False)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in outputs["images"].items():
            aside = self.folder / f"{name}.tmp"
            Image.fromarray(pixels).save(aside, format="PNG")
            aside.replace(self.folder / name)


class SheetWriter(pl.Callback):
    """Draws contact sheets of all images of a run, and its ablation, from what the run has left.

    Stands after :class:`RowWriter`, whose teardown waits until all ranks have written their rows.

    Args:
        rows: Folder of the rows.
        images: Folder of the images.
        folder: Where the figures go.
        file_format: png, or pdf for both.

    Example:
        >>> sheets = SheetWriter(Path("run/results"), Path("run/images"), Path("run/figures"))
        >>> trainer = pl.Trainer(callbacks=[sheets], logger=False)
    """

    def __init__(self, rows: Path, images: Path, folder: Path, file_format: FigureFormat = "png") -> None:
        self.rows = rows
        self.images = images
        self.folder = folder
        self.file_format = file_format

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:
            return
        rows = [row for row in read_rows(self.rows).to_pylist() if row.get("status") == "ok"]
        by_variant = {name: group for name in VARIANTS if (group := [row for row in rows if row["variant"] == name])}
        for variant, group in by_variant.items():
            for page, start in enumerate(range(0, len(group), TILES_PER_SHEET)):
                alone = "" if len(by_variant) == 1 else f": {variant}"
                part = group[start : start + TILES_PER_SHEET]
                which = f", {start + 1} to {start + len(part)} of {len(group)}" if len(part) < len(group) else ""
                title = f"{self.folder.parent.name}{alone}{which}"
                sheet = contact_sheet([self._tile(row) for row in part], title)
                name = f"contact_sheet_{variant.replace(' ', '_')}_{page:03d}"
                save_figure(sheet, self.folder, name, self.file_format)
        if len(by_variant) > 1:
            self._draw_ablation(by_variant, pl_module)

    def _draw_ablation(self, by_variant: dict[str, list[dict[str, Any]]], pl_module: pl.LightningModule) -> None:
        tiles = {}
        for variant, group in by_variant.items():
            means = [f"{name} {_mean(group, column)}" for column, name in NUMBERS.items()]
            label = "\n".join([variant.upper(), f"mean of {len(group)}:", *means])
            tiles[label] = [self._tile(row) for row in group[:ABLATION_COLUMNS]]
        figure = ablation_figure(tiles, f"Ablation\n{pl_module.ablation_legend}")
        save_figure(figure, self.folder, "ablation", self.file_format)

    def _tile(self, row: dict[str, Any]) -> Tile:
        """A row as an image, its name, and its numbers: p and under fresh shifts, or activations for a channel."""
        measure = "activation" if row["probability"] is None else "probability"
        before, after = row[measure], row[f"{measure}_shifted"]
        text = f"{before:.2f}" if measure == "activation" else f"p {before:.1%}"
        shifted = f"{after:.2f}" if measure == "activation" else f"{after:.1%}"
        caption = f"{text}, shifted {shifted}\nTV {row['total_variation']:.4f}"
        pixels = np.asarray(Image.open(self.images / row["image"]).convert("RGB"))
        name = shorten(row["name"], 22)
        return Tile(pixels, f"{name}, seed {row['seed']}" if row["seed"] else name, caption)


def _mean(rows: Sequence[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows if row[column] is not None]
    return f"{np.mean(values):.4f}" if values else "-"
