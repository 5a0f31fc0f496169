"""What the scripts share: Lightning's command line, with ``--out RUN`` and errors a user can act on."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from _parser import HelpfulParser
from _provenance import device_names, git_commit, seeds, versions, weights_sha256
from _run import RunError, RunFolder, write_text
from _stopping import StopOnSignal, Stopped
from jsonargparse import Namespace
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules import DataError, ImageFolderDataModule
from lightning_modules import (
    FigureWriter,
    InputError,
    ReportWriter,
    RowWriter,
    RunFigureWriter,
    Summarizer,
    keep_freed_memory,
)
from lightning_modules.files import FigureFormat
from lightning_modules.report import describe_images, flat_settings
from lightning_modules.rows import done_paths

# Lightning's advertisement, and its warnings about things that are chosen here, not by the user.
logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.msg)
for message in (
    "`isinstance.treespec, LeafSpec.` is deprecated",
    ".*does not have many workers",
    "Total length of `.*` across ranks is zero",  # a run that is complete, or has fewer images than devices
):
    warnings.filterwarnings("ignore", message)


OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of the file system that are the user's to mend."""


class RunCLI(LightningCLI):
    """Parses the options, builds model, data and trainer, and gives everything that a run leaves to ``--out``.

    The Trainer gets a TensorBoard logger in ``RUN/tensorboard`` and a progress bar. ``run`` is False: the script says
    what is to be done with the parts.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        data_class: type[LightningDataModule],
        *,
        description: str,
        args: list[str] | None = None,
        any_data: bool = False,
        **trainer_defaults: Any,
    ) -> None:
        import_from_here()
        super().__init__(
            model_class,
            data_class,
            save_config_callback=None,
            trainer_defaults=trainer_defaults,
            seed_everything_default=False,
            subclass_mode_data=any_data,
            parser_class=HelpfulParser,
            parser_kwargs={"description": description},
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--out", type=str, required=True, help="Folder for everything that the run leaves (RUN).")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except (AttributeError, KeyError, TypeError) as error:  # the parser's own, about files of odd structure
            parser.error(f"the options cannot be understood: {error}")

    def before_instantiate_classes(self) -> None:
        """Refuses null where an option has to have a value, which the parser lets through."""
        for group in ("model", "data", "trainer"):
            if not isinstance(self.config.get(group), Namespace):
                raise RunError(f"{group} is {self.config.get(group)!r}; it should be a group of options.")
        for group, kind in (("model", self._model_class), ("data", self._datamodule_class)):
            for name, parameter in inspect.signature(kind).parameters.items():
                options = self.config[group]
                if name in options and options[name] is None and "None" not in str(parameter.annotation):
                    raise RunError(f"{group}.{name} is null; it should be {parameter.annotation}.")

    @property
    def out(self) -> Path:
        return Path(self.config["out"]).expanduser()

    def callbacks(self) -> list[Callback]:
        """The callbacks of this script, beside those that the user configures."""
        return []

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        logger = TensorBoardLogger(str(self.out), name="", version="tensorboard")
        config["logger"] = logger if config.get("logger") in (None, True) else config["logger"]
        bar = [] if config.get("enable_progress_bar") is False else [RichProgressBar(leave=True)]
        try:
            return self._instantiate_trainer(config, [*bar, *self.callbacks()])
        # Lightning's MisconfigurationException is none of these; see run_main
        except (TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"The trainer's options do not fit together or this machine: {error}") from error

    @property
    def settings(self) -> str:
        """All options, as ``--config`` reads them back."""
        # Without what would delete the results of whoever repeats them.
        config = self.config.clone()
        config.pop("overwrite", None)
        return self.parser.dump(config, skip_validation=True)


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
        words = [sys.argv[0], *(sys.argv[1:] if args is None else args)]
        self.command = shlex.join(["python", *words])
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
        run.lock()
        if self.config["overwrite"]:
            run.clear()
        run.remove_unfinished()
        # A run that was refused before its first batch leaves its settings alone; they may be corrected.
        fixed = run.has_rows()
        self.inputs = {"weights_sha256": weights_sha256(self.model.network), "data": self.datamodule.fingerprint()}
        run.settle("config.yaml", self.settings, fixed=fixed)
        run.settle("inputs.json", json.dumps(self.inputs, indent=2) + "\n", fixed=fixed)
        run.begin_session()

    def _close_run(self) -> dict[str, Any]:
        """Writes ``summary.json``: of all rows, and of what produced them."""
        run, summary = self.run_folder, self.summarizer.summary
        if summary is None:
            raise RunError(f"Nothing was computed into {self.out}: is trainer.limit_test_batches 0?")
        run.end_session()
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


def import_from_here() -> None:
    """Lets what the user names by its import path lie in the folder they work in."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


# What a model says of its network; help shows these names.


def class_names(model: Any) -> list[str]:
    return model.network.class_names


def input_size(model: Any) -> int:
    return model.network.input_size


def resize_size(model: Any) -> int:
    return model.network.resize_size


def run_main(main: Callable[[], int | None]) -> None:
    """Runs a script's ``main`` and exits with what it returns.

    An error of the user's input is printed as a line, with exit code 2, and so is one of the file system. A run that
    was stopped by a signal exits with 128 + the signal's number, as shells have it.
    """
    keep_freed_memory()
    try:
        sys.exit(main())
    except (DataError, InputError, RunError, MisconfigurationException) as error:
        message = str(error)
    except ValueError as error:
        # jsonargparse wraps what is raised while it passes a value from one part to the next.
        if not isinstance(error.__cause__, DataError | InputError):
            raise
        message = str(error.__cause__)
    except OSError as error:
        if error.errno not in OF_THE_DISK:
            raise
        message = f"{error}. What was written is whole; the same command goes on from there."
    except Stopped as stopped:
        if stopped.rank:  # Lightning kills the first process, which may still be writing, when another one fails
            sys.exit(0)
        print(f"{stopped}. What was computed is written; the same command goes on from there.", file=sys.stderr)
        sys.exit(128 + stopped.signum)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
