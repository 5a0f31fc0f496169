"""What a run leaves: rows in Parquet, figures as files and in TensorBoard."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_modules.results.files import FigureFormat, save_figure
from lightning_modules.results.report import IMAGES, RUN, Report
from lightning_modules.results.rows import part_name, read_rows, write_part


class RowWriter(pl.Callback):
    """Writes the rows that ``test_step`` returns to ``folder``, in parts, as they come.

    Args:
        folder: Where the parts go.
        rows_per_part: A part is written when it has this many rows ...
        seconds_per_part: ... or is this old: what a crash can lose at most.

    Example:
        >>> trainer = pl.Trainer(callbacks=[RowWriter(Path("run/results"), seconds_per_part=5.0)], logger=False)
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


class FigureWriter(pl.Callback):
    """Writes the figures that ``test_step`` returns to ``folder``, each rank those of its own images.

    It stands before the :class:`RowWriter`: rows say that an image is done, so its figure has to be there.

    Args:
        folder: Where the files go.
        file_format: png, or pdf for both.

    Example:
        >>> writers = [FigureWriter(Path("run/figures"), "pdf"), RowWriter(Path("run/results"))]
        >>> trainer = pl.Trainer(callbacks=writers, logger=False)
    """

    def __init__(self, folder: Path, file_format: FigureFormat = "png") -> None:
        self.folder = folder
        self.file_format = file_format

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
            name = re.sub(r"[^\w.-]+", "_", Path(batch["path"][i]).with_suffix("").as_posix())[-80:]
            name = name.encode()[-200:].decode(errors="ignore")  # file systems count bytes
            save_figure(figure, self.folder, f"{int(batch['index'][i]):05d}_{name}", self.file_format)


class Summarizer(pl.Callback):
    """Reduces the rows of all ranks to the summary, once, by the module's ``summarize``.

    It stands after the :class:`RowWriter`, which waits for the rows, and before those that show the summary.

    Args:
        rows: Where the parts are.

    Attributes:
        summary: On the first rank, at the end; None if there are no rows.

    Example:
        >>> Summarizer(Path("runs/val/results")).summary is None
        True
    """

    def __init__(self, rows: Path) -> None:
        self.rows = rows
        self.summary: dict[str, Any] | None = None

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if trainer.is_global_zero and any(self.rows.glob("part-*.parquet")):
            self.summary = pl_module.summarize(read_rows(self.rows))


class RunFigureWriter(pl.Callback):
    """Writes the figures of the whole run, which the module's ``run_figures`` draws from the summary, at the end.

    It stands before the :class:`ReportWriter`, which shows the files.

    Args:
        summarizer: Has the summary by then.
        folder: Where the files go.
        file_format: png, or pdf for both.

    Example:
        >>> rows = Path("run/results")
        >>> summarizer = Summarizer(rows)
        >>> writers = [RowWriter(rows), summarizer, RunFigureWriter(summarizer, Path("run/figures"))]
        >>> trainer = pl.Trainer(callbacks=writers, logger=False)
    """

    def __init__(self, summarizer: Summarizer, folder: Path, file_format: FigureFormat = "png") -> None:
        self.summarizer = summarizer
        self.folder = folder
        self.file_format = file_format

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if self.summarizer.summary is not None:
            for name, figure in pl_module.run_figures(self.summarizer.summary).items():
                save_figure(figure, self.folder, name, self.file_format)


class ReportWriter(pl.Callback):
    """Makes TensorBoard the report of the run: figures as they come and, at the end, its numbers, curves and tables.

    The numbers are the module's ``report`` of the summary of all rows, also of those that earlier, unfinished runs of
    the same RUN left; what those showed is replaced. It stands after the callbacks that write rows and figures.

    Args:
        summarizer: Has the summary by then.
        folder: Where the figures' files are.
        command: The command line, as text.
        settings: Names -> plain values: the hyperparameters.

    Example:
        >>> rows, figures = Path("run/results"), Path("run/figures")
        >>> summarizer = Summarizer(rows)
        >>> report = ReportWriter(summarizer, figures, "python my_script.py", {"model.eps": 0.1})
        >>> writers = [FigureWriter(figures), RowWriter(rows), summarizer, report]
        >>> trainer = pl.Trainer(callbacks=writers, logger=False)
    """

    def __init__(
        self, summarizer: Summarizer, folder: Path, command: str, settings: Mapping[str, bool | str | float]
    ) -> None:
        self.summarizer = summarizer
        self.folder = folder
        self.command = command
        self.settings = dict(settings)
        self.shown: set[str] = set()
        self.board: SummaryWriter | None = None

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if outputs["figures"] and (board := self._open(trainer)):
            self._show_figures(board)

    def teardown(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        if self.summarizer.summary is None or not (board := self._open(trainer)):
            return
        self._show_figures(board)
        self._show_numbers(board, pl_module.report(self.summarizer.summary))
        board.close()
        self.board = None

    def _open(self, trainer: pl.Trainer) -> SummaryWriter | None:
        """The writer; None where there is no TensorBoard, and on ranks that do not log."""
        logger = next((each for each in trainer.loggers if isinstance(each, TensorBoardLogger)), None)
        if logger is None or not trainer.is_global_zero:
            return None
        if self.board is None:
            # A file of its own, which a continued run replaces: otherwise numbers would stand there twice.
            for old in Path(logger.log_dir).glob("events.out.tfevents.*.report"):
                old.unlink()
            self.board = SummaryWriter(logger.log_dir, filename_suffix=".report")
        return self.board

    def _show_figures(self, board: SummaryWriter) -> None:
        for path in sorted(self.folder.glob("*.png")):
            if path.name in self.shown:
                continue
            self.shown.add(path.name)
            # Figures of one image begin with its number.
            group = IMAGES if re.match(r"\d{5}_", path.name) else RUN
            board.add_image(f"{group}/{path.stem}", np.asarray(Image.open(path).convert("RGB")), dataformats="HWC")
        board.flush()

    def _show_numbers(self, board: SummaryWriter, report: Report) -> None:
        scalars = {name: value for name, value in report.scalars.items() if value is not None}
        for name, value in scalars.items():
            board.add_scalar(name, value, 0)
        for name, points in report.curves.items():
            for step, number in points:
                if number is not None:
                    board.add_scalar(name, number, step)
        command = textwrap.indent(self.command, "    ")  # which Markdown shows as it is
        board.add_text("report", f"{report.tables}\n\nThe command:\n\n{command}\n", 0)
        writer: Any = board.file_writer
        for part in hparams(self.settings, scalars):
            writer.add_summary(part)
