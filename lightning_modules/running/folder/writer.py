"""The one writer of a RUN."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from datamodules.batch import EvaluationData
from datamodules.writing import naming, written_whole
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.figures.saving import Drawing, FigureFormat, figure_name, save_figure
from lightning_modules.results.report import Report
from lightning_modules.results.storage import Parts, StoredRows, done_paths, parts_of
from lightning_modules.results.summaries.extremes import summarize_extremes, table_of_extremes
from lightning_modules.running import stopping
from lightning_modules.running.folder.board import Board
from lightning_modules.running.folder.provenance import device_names
from lightning_modules.running.folder.run_folder import RunFolder
from lightning_modules.text import plain

ROWS_PER_PART = 8192

GOES_ON = "The same command goes on from there."


class RunWriter(pl.Callback):
    """Writes all that a run of a :class:`EvaluationModule` leaves, each file whole or not there.

    After each step pictures that were made, then the figures, then what is kept beside the rows, and the rows: a row
    says that its image is done. At the end, when all processes have written their rows, the first one reduces them to
    the summary, draws the figures of the whole run and makes TensorBoard its report, if there is one.

    Args:
        run: The folder of the run.
        figure_format: png, or pdf for both.
        command: The command line, as text.
        settings: Names -> plain values: TensorBoard's hyperparameters.

    Attributes:
        devices: Of all processes, by rank.
        summary: Of all rows, on the first process, at the end; None if there are no rows.
        report: The report of the summary, likewise.
    """

    def __init__(
        self,
        run: Path,
        figure_format: FigureFormat = "png",
        command: str = "",
        settings: Mapping[str, bool | str | float] | None = None,
    ) -> None:
        self.run = run
        self.folder = RunFolder(run)
        self.figure_format = figure_format
        self.command = command
        self.settings = dict(settings or {})
        self.devices: list[str] = []
        self.summary: dict[str, Any] | None = None
        self.report = Report()
        self.parts: Parts | None = None
        self.board: Board | None = None
        self.writing = threading.RLock()
        self.n_images: int | None = None

    @property
    def rows(self) -> Path:
        return self.run / "results"

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, EvaluationModule)
        if not trainer.is_global_zero:  # whose script has locked the folder, or there would be no other process
            self.folder.share()
        self.devices = device_names(trainer.strategy.root_device)
        # Which may decide the columns.
        pl_module.check_data(trainer.datamodule)  # type: ignore[attr-defined]
        when = ROWS_PER_PART, pl_module.seconds_per_part
        self.parts = Parts(self.rows, pl_module.schema, trainer.global_rank, *when)
        data: EvaluationData = trainer.datamodule  # type: ignore[attr-defined]

        def save_early() -> None:
            self._save()
            data.end_early()

        stopping.save_at_the_end(save_early, lambda: self._outlook(pl_module.n_in_hand))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, EvaluationModule)
        self.n_images = getattr(trainer.datamodule, "n_listed", None)  # type: ignore[attr-defined]
        if trainer.is_global_zero:
            pl_module.prepare_run(self.run)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Outputs,  # type: ignore[override]
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.on_part_end(trainer, outputs, batch)

    def on_part_end(self, trainer: pl.Trainer, outputs: Outputs, batch: Any, n_images: int | None = None) -> None:
        """Called by the module when ``n_images`` of a batch have their rows, unless they are the last."""
        made = {f"images/{name}": pixels for name, pixels in outputs.get("images", {}).items()}
        for file, pixels in (made | outputs.get("pictures", {})).items():
            with written_whole(self.run / file) as aside:
                Image.fromarray(pixels).save(aside, format="PNG")
        named = [
            (figure_name(int(batch["index"][i]), batch["path"][i]), batch["path"][i], figure)
            for i, figure in outputs["figures"].items()
        ]
        for name, path, figure in sorted(named, key=lambda each: each[0]):
            self._draw(figure, name, path)
        with self.writing:
            assert self.parts is not None
            self.parts.add(outputs["rows"], outputs.get("arrays", {}))
            trainer.lightning_module.n_in_hand = 0  # type: ignore[assignment]
        with naming(self.run / "tensorboard"):
            if named and (board := self._opened_board(trainer)):
                board.show_figures()

    def _draw(self, figure: Figure | Drawing, name: str, image: str) -> None:
        try:
            save_figure(figure, self.run / "figures", name, self.figure_format)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:  # names the figure's file
                raise
            raise RuntimeError(
                f"The figure of {plain(image)} cannot be drawn: {type(error).__name__}: {error}"
            ) from error

    def _save(self) -> None:
        """Writes the rows that there are; any thread may call it."""
        with self.writing:
            if self.parts is not None:
                self.parts.write()

    def _outlook(self, n_in_hand: int) -> str:
        """What an early end leaves, and how the run goes on."""
        of_all = "" if self.n_images is None else f" of {self.n_images:,}"
        lost = f"; what was begun of {n_in_hand:,} more is lost" if n_in_hand else ""
        return f"Rows of {len(done_paths(self.rows)):,}{of_all} images are written{lost}. {GOES_ON}"

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        # Where the disk is full, this fails as well; then the first error should be told.
        with suppress(OSError):
            self._save()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Not on_test_epoch_end: a rank that has no images at all does not get there.
        assert isinstance(pl_module, EvaluationModule)
        self._save()
        # After this, the first rank may read what all have written.
        trainer.strategy.barrier()
        if not trainer.is_global_zero or not parts_of(self.rows):
            return
        rows = StoredRows(self.rows)
        self.summary = {"n_listed": pl_module.n_listed, **pl_module.summarize(rows)}
        if extremes := summarize_extremes(rows, pl_module.better, self.run):
            self.summary |= {"better": dict(pl_module.better), "extremes": extremes}
        for name, figure in pl_module.run_figures(self.summary, self.run):
            save_figure(figure, self.run / "figures", name, self.figure_format)
        details = [*pl_module.details(self.run), *table_of_extremes(extremes)]
        self.report = replace(pl_module.report(self.summary), details=details)
        with naming(self.run / "tensorboard"):
            if board := self._opened_board(trainer):
                board.show_figures()
                board.show_report(self.report, self.command, self.settings)
                board.close()
                self.board = None

    def _opened_board(self, trainer: pl.Trainer) -> Board | None:
        """None where there is no TensorBoard, and on ranks that do not log."""
        logger = next((each for each in trainer.loggers if isinstance(each, TensorBoardLogger)), None)
        if logger is None or not trainer.is_global_zero:
            return None
        if self.board is None:
            self.board = Board(Path(logger.log_dir), self.run / "figures")
        return self.board
