"""What the scripts share: Lightning's command line, with ``--out RUN`` and errors a user can act on."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from _parser import HelpfulParser
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules import DataError, ImageFolderDataModule
from lightning_modules import FigureWriter, InputError, ReportWriter, RowWriter, RunFigureWriter
from lightning_modules.files import FigureFormat
from lightning_modules.report import describe_images, flat_settings
from lightning_modules.rows import done_paths, read_rows

SPLIT = frozenset(
    (
        "config",
        "figure_format",
        "out",
        "data.batch_size",
        "data.num_workers",
        "trainer.accelerator",
        "trainer.devices",
        "trainer.limit_test_batches",
        "trainer.num_nodes",
        "trainer.strategy",
    )
)
"""Options that decide how the work is split, how much of it is done, or how it is shown, never a number."""


# Lightning's advertisement, and its warnings about things that are chosen here, not by the user.
logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(lambda record: "litlogger" not in record.msg)
for message in (
    "`isinstance.treespec, LeafSpec.` is deprecated",
    ".*does not have many workers",
    "Total length of `DataLoader` across ranks is zero",  # a run that is complete, or has fewer images than devices
):
    warnings.filterwarnings("ignore", message)


class RunError(ValueError):
    """A RUN that cannot be used as asked; the message says why."""


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
        except ValueError as error:  # Lightning's MisconfigurationException is no ValueError; see run_main
            raise RunError(f"The trainer's options do not fit together or this machine: {error}") from error

    def has_results(self) -> bool:
        """Whether RUN holds something that other settings must not be mixed with."""
        return True

    def save_config(self) -> None:
        """Writes ``RUN/config.yaml``, which ``--config`` reads back; refuses a RUN made with other settings.

        Raises:
            RunError: If RUN holds the results of settings that give other numbers.
        """
        if self.out.exists() and not self.out.is_dir():
            raise RunError(f"--out should be a folder, but {self.out} is a file.")
        path = self.out / "config.yaml"
        text = self.parser.dump(self.config, skip_validation=True)
        if path.exists() and self.has_results():
            differences = _differences(yaml.safe_load(path.read_text()), yaml.safe_load(text))
            if differences:
                raise RunError(
                    f"{self.out} holds a run of other settings: {'; '.join(differences)}. Give this one another --out, "
                    "or delete that folder."
                )
        elif self.trainer.is_global_zero:
            self.out.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


class TestCLI(RunCLI):
    """Runs a LightningModule's test loop over everything that has no rows yet, each exactly once.

    The module gives the columns of its rows by ``schema``, reduces them with ``summarize``, and says by ``report`` what
    is to be shown of the summary. Its ``test_step`` returns ``rows`` and ``figures``. The data module skips what is in
    its ``done``.
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
        config = yaml.safe_load(self.parser.dump(self.config, skip_validation=True))
        shown = {
            "data": {name: config["data"].get(name) for name in ("root", "classes", "seed")},
            "model": {name: value for name, value in config["model"].items() if name != "n_figures"},
            "trainer": {name: config["trainer"].get(name) for name in ("limit_test_batches", "precision")},
        }
        return ReportWriter(self.out / "results", self.out / "figures", self.command, flat_settings(shown))

    def has_results(self) -> bool:
        # A run that was refused before its first batch leaves its settings alone; they may be corrected.
        return any((self.out / "results").glob("part-*.parquet"))

    def evaluate(self) -> dict[str, Any] | None:
        """Tests what has no rows yet; on the first rank, returns the summary of all rows, also saved."""
        self.save_config()
        # TensorFloat-32 rounds to three digits, and differently in batches of other sizes: whoever wants speed asks for
        # bf16-mixed, and whoever asks for 32-true gets it.
        torch.backends.cudnn.allow_tf32 = False
        self.datamodule.done = done_paths(self.out / "results")
        self.trainer.test(self.model, self.datamodule, verbose=False)
        if not self.trainer.is_global_zero:
            return None
        summary = self.model.summarize(read_rows(self.out / "results"))
        (self.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
        return summary


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
            RunFigureWriter(rows, figures, self.figure_format),
            self.report_writer(),
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


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    """What differs between two configurations, apart from how the work is split."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            if f"{prefix}{key}" not in SPLIT
            for line in _differences(before.get(key), now.get(key), f"{prefix}{key}.")
        ]
    return [] if before == now else [f"{prefix[:-1]} was {before!r}, is now {now!r}"]


def run_main(main: Callable[[], Any]) -> None:
    """Runs a script's ``main``; an error of the user's input is printed as a line, with exit code 2."""
    try:
        sys.exit(main())
    except (DataError, InputError, RunError, MisconfigurationException) as error:
        message = str(error)
    except ValueError as error:
        # jsonargparse wraps what is raised while it passes a value from one part to the next.
        if not isinstance(error.__cause__, DataError | InputError):
            raise
        message = str(error.__cause__)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
