"""What the evaluating scripts share: a test loop over what has no rows yet, and a RUN that may be continued."""

from __future__ import annotations

import json
import os
import shlex
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser

from datamodules import ImageFolderDataModule
from lightning_modules.results.files import FigureFormat
from lightning_modules.results.report import describe_images, flat_settings
from lightning_modules.results.rows import done_paths
from lightning_modules.running.callbacks import FigureWriter, ReportWriter, RowWriter, RunFigureWriter, Summarizer
from lightning_modules.running.cli import RunCLI
from lightning_modules.running.provenance import device_names, git_commit, seeds, versions, weights_sha256
from lightning_modules.running.run_folder import RunError, RunFolder, write_text
from lightning_modules.running.stopping import StopOnSignal


class TestCLI(RunCLI):
    """Runs a LightningModule's test loop over everything that has no rows yet, each exactly once.

    The module gives the columns of its rows by ``schema``, reduces them with ``summarize``, and says by ``report`` what
    is to be shown of the summary. Its ``test_step`` returns ``rows`` and ``figures``. The data module skips what its
    ``read_done`` names.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        data_class: type[LightningDataModule],
        *,
        description: str,
        args: list[str] | None,
    ) -> None:
        words = map(shlex.quote, ["python", sys.argv[0], *(sys.argv[1:] if args is None else args)])
        # An option a line, as it is to be read.
        self.command = "".join(f" \\\n    {word}" if word[:2] == "--" else f" {word}" for word in words).lstrip()
        super().__init__(
            model_class,
            data_class,
            description=description,
            args=args,
            # The data module shares the work out itself: Lightning's sampler repeats some where it does not divide.
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--overwrite", action="store_true", help="Delete what an earlier run left in RUN first.")
        parser.add_argument("--strict", action="store_true", help="Exit with 1 if any image failed.")
        parser.add_argument(
            "--figure_format",
            type=FigureFormat,
            default="png",
            help="Files of the figures: png (110 pixels an inch), or pdf, vectors for print, beside each png.",
        )

    @property
    def figure_format(self) -> FigureFormat:
        return self.config["figure_format"]

    def report_writer(self) -> ReportWriter:
        """The callback that stands last."""
        config = yaml.safe_load(self.settings)
        shown = {
            "data": {name: config["data"].get(name) for name in ("root", "classes", "seed")},
            "model": {name: value for name, value in config["model"].items() if name != "n_figures"},
            "trainer": {name: config["trainer"].get(name) for name in ("limit_test_batches", "precision")},
        }
        return ReportWriter(self.summarizer, self.out / "figures", self.command, flat_settings(shown))

    @cached_property
    def summarizer(self) -> Summarizer:
        return Summarizer(self.out / "results")

    def callbacks(self) -> list[Callback]:
        self.run_folder = RunFolder(self.out)
        self.guard = RunGuard(self.run_folder)
        return [self.guard, StopOnSignal()]

    def evaluate(self) -> dict[str, Any] | None:
        """Tests what has no rows yet; on the first rank, returns the summary of all rows, also saved."""
        # TensorFloat-32 rounds to three digits, and differently in batches of other sizes: whoever wants speed asks for
        # bf16-mixed, and whoever asks for 32-true gets it.
        torch.backends.cudnn.allow_tf32 = False
        data, results = self.datamodule, self.out / "results"
        data.read_done, data.listing_file = partial(done_paths, results), self.out / "listing.arrow"
        if data.limit_to(self.trainer.limit_test_batches):
            self.trainer.limit_test_batches = 1.0
        try:
            if self.trainer.is_global_zero:
                self._open_run()
            self.trainer.test(self.model, data, verbose=False)
            return self._close_run() if self.trainer.is_global_zero else None
        finally:
            self.run_folder.unlock()

    def _open_run(self) -> None:
        """Locks RUN and makes sure that what it holds, if anything, came from the same settings and inputs."""
        run = self.run_folder
        run.check()
        # Before anything is written or deleted: a slip in the name of the images costs nothing.
        self.inputs = {"weights_sha256": weights_sha256(self.model.network), "data": self.datamodule.fingerprint()}
        places = {name: self._get(self.config, f"data.{name}") for name in ("root", "boxes")}
        paths = {name: Path(place).expanduser() for name, place in places.items() if place is not None}
        self.inputs["paths"] = {name: os.path.realpath(path) for name, path in paths.items()}
        run.lock()
        # A run that ended before its first rows leaves its settings alone; they may be corrected.
        fixed = run.has_rows() and not self.config["overwrite"]
        if not fixed:
            run.clear(list(paths.values()))
        run.remove_unfinished()
        run.settle("config.yaml", self.settings, fixed=fixed)
        run.settle("inputs.json", json.dumps(self.inputs, indent=2) + "\n", fixed=fixed)
        run.begin_session()

    def _close_run(self) -> dict[str, Any]:
        """Writes ``summary.json``: of all rows, and of what produced them."""
        run, summary = self.run_folder, self.summarizer.summary
        if summary is None:
            raise RunError(f"Nothing was computed into {self.out}: is trainer.limit_test_batches 0?")
        run.end_session()
        if not run.has_grown():
            print("Nothing was left to compute: every image has its rows.")
        produced_by = {
            **self.inputs,
            "seeds": {"data": self._get(self.config, "data.seed"), **seeds(self.model)},
            "git_commit": git_commit(),
            "versions": versions(),
            "devices": self.guard.devices,
            "sessions": run.n_sessions(),
            "wall_time_s": round(run.wall_time(), 3),
        }
        write_text(self.out / "summary.json", json.dumps({**summary, "produced_by": produced_by}, indent=2) + "\n")
        return summary

    def exit_code(self, summary: dict[str, Any] | None) -> int:
        """1 if images failed and that was asked to count, else 0."""
        return int(self.config["strict"] and summary is not None and summary["n_failed"] > 0)


class RunGuard(Callback):
    """Holds RUN for each process that writes it, and learns their devices."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.devices: list[str] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero:  # which has it already, or there would be no other
            self.run.share()
        self.devices = device_names(trainer.strategy.root_device)


class EvaluationCLI(TestCLI):
    """Runs an evaluating LightningModule over a folder of images.

    The module names its classes and image size by its ``network``, and the number of figures by ``n_figures``; its
    ``run_figures`` draws those of the whole run.
    """

    def __init__(self, model_class: type[LightningModule], *, description: str, args: list[str] | None) -> None:
        super().__init__(model_class, ImageFolderDataModule, description=description, args=args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for of_model in (class_names, input_size, resize_size):
            parser.link_arguments("model", f"data.{of_model.__name__}", of_model, apply_on="instantiate")
        parser.link_arguments("model.n_figures", "data.n_originals")

    def callbacks(self) -> list[Callback]:
        rows, figures = self.out / "results", self.out / "figures"
        # A figure is written before its image's rows, which say that it is done; those of the whole run when the rows
        # are whole, and before all are shown.
        return [
            FigureWriter(figures, self.figure_format),
            RowWriter(rows),
            self.summarizer,
            RunFigureWriter(self.summarizer, figures, self.figure_format),
            self.report_writer(),
            *super().callbacks(),
        ]

    def print_outcome(self, summary: dict[str, Any]) -> None:
        """Prints how many images there were, how well they were classified, and where to look."""
        print(f"{describe_images(summary)}\nRows, summary, figures: {self.out}")
        print(f"Look at it: tensorboard --logdir {self.out}")


# What a model says of its network; help shows these names.


def class_names(model: Any) -> list[str]:
    return model.network.class_names


def input_size(model: Any) -> int:
    return model.network.input_size


def resize_size(model: Any) -> int:
    return model.network.resize_size
