"""What a run leaves: rows in Parquet, figures as files and in TensorBoard."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from lightning_modules.rows import part_name, read_rows, write_part


class RowWriter(pl.Callback):
    """Writes the rows that ``test_step`` returns to ``folder``, in parts, as they come.

    Args:
        folder: Where the parts go.
        rows_per_part: A part is written when it has this many rows ...
        seconds_per_part: ... or is this old: what a crash can lose at most.
    """

    def __init__(self, folder: Path, rows_per_part: int = 8192, seconds_per_part: float = 60.0) -> None:
        self.folder = folder
        self.rows_per_part = rows_per_part
        self.seconds_per_part = seconds_per_part
        self.rows: list[dict[str, Any]] = []
        self.part: Path | None = None
        self.last_part = time.monotonic()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.rows += outputs["rows"]
        if len(self.rows) >= self.rows_per_part or time.monotonic() - self.last_part > self.seconds_per_part:
            self._write(trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Not on_test_epoch_end: a rank that has no images at all does not get there.
        self._write(trainer, pl_module)
        # After this, the first rank may read what all have written.
        trainer.strategy.barrier()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Where the disk is full, this fails as well; then the first error should be told.
        with suppress(OSError):
            self._write(trainer, pl_module)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.rows:
            # A signal may come at any point here, after which the rows are written once more: to the same part.
            self.part = self.part or self.folder / part_name(trainer.global_rank)
            write_part(self.part, self.rows, pl_module.schema)
            self.rows = []
        self.part = None
        self.last_part = time.monotonic()


class RunFigureWriter(pl.Callback):
    """Writes the figures of the whole run, which the module's ``run_figures`` draws from all rows, at the end.

    It stands after the :class:`RowWriter`, which waits for the rows of all ranks, and before the :class:`FigureWriter`,
    which shows the files.

    Args:
        rows: Where the parts are.
        folder: Where the files go.
    """

    def __init__(self, rows: Path, folder: Path) -> None:
        self.rows = rows
        self.folder = folder

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if not trainer.is_global_zero or not any(self.rows.glob("part-*.parquet")):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, figure in pl_module.run_figures(read_rows(self.rows)).items():
            _save(figure, self.folder / f"{name}.png")


class FigureWriter(pl.Callback):
    """Writes the figures that ``test_step`` returns to ``folder`` and shows the files in TensorBoard.

    Every rank writes those of its own images; the first one, which alone logs, shows the files of all.

    Args:
        folder: Where the files go.
        group: The heading in TensorBoard under which they stand.
    """

    def __init__(self, folder: Path, group: str) -> None:
        self.folder = folder
        self.group = group
        self.shown: set[str] = set()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for i, figure in outputs["figures"].items():
            self.folder.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^\w.-]+", "_", Path(batch["path"][i]).with_suffix("").as_posix())[-80:]
            _save(figure, self.folder / f"{int(batch['index'][i]):05d}_{name}.png")
        if outputs["figures"]:
            self._show(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        trainer.strategy.barrier()
        self._show(trainer)

    def _show(self, trainer: pl.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        for path in sorted(self.folder.glob("*.png")):
            if path.name in self.shown:
                continue
            self.shown.add(path.name)
            pixels = np.asarray(Image.open(path).convert("RGB"))
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(f"{self.group}/{path.stem}", pixels, dataformats="HWC")


def _save(figure: Figure, path: Path) -> None:
    """Writes a figure aside and renames it, so that a file is either whole or not there."""
    aside = path.with_suffix(".tmp")
    figure.savefig(aside, format="png")
    aside.replace(path)
