"""What the scripts share: Lightning's command line, with ``--out RUN`` and errors a user can act on."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from _memory import keep_freed_memory
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger

from datamodules import DataError, ImageFolderDataModule
from lightning_modules import FigureWriter, InputError, RowWriter, RunFigureWriter
from lightning_modules.rows import done_paths, read_rows

SPLIT = frozenset(
    (
        "config",
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
"""Options that decide how the work is split or how much of it is done, never a number."""


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
        # A class that the user names by its import path may lie in the folder they work in.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        super().__init__(
            model_class,
            data_class,
            save_config_callback=None,
            trainer_defaults=trainer_defaults,
            seed_everything_default=False,
            subclass_mode_data=any_data,
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
        return self._instantiate_trainer(config, [*bar, *self.callbacks()])

    def has_results(self) -> bool:
        """Whether RUN holds something that other settings must not be mixed with."""
        return True

    def save_config(self) -> None:
        """Writes ``RUN/config.yaml``, which ``--config`` reads back; refuses a RUN made with other settings.

        Raises:
            RunError: If RUN holds the results of settings that give other numbers.
        """
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

    The module gives the columns of its rows by ``schema`` and reduces them with ``summarize``. Its ``test_step``
    returns ``rows`` and ``figures``, which stand under ``group`` in TensorBoard. The data module skips what is in its
    ``done``.
    """

    def __init__(
        self,
        model_class: type[LightningModule],
        data_class: type[LightningDataModule],
        *,
        group: str,
        description: str,
        args: list[str] | None,
    ) -> None:
        self.group = group
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

    def __init__(
        self, model_class: type[LightningModule], *, group: str, description: str, args: list[str] | None
    ) -> None:
        super().__init__(model_class, ImageFolderDataModule, group=group, description=description, args=args)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for name in ("class_names", "input_size", "resize_size"):
            parser.link_arguments("model", f"data.{name}", partial(_of_network, name=name), apply_on="instantiate")
        parser.link_arguments("model.n_figures", "data.n_originals")

    def callbacks(self) -> list[Callback]:
        rows, figures = self.out / "results", self.out / "figures"
        # Those of the whole run are drawn when the rows are whole, and before the figures are shown.
        return [RowWriter(rows), RunFigureWriter(rows, figures), FigureWriter(figures, self.group)]

    def print_outcome(self, summary: dict[str, Any]) -> None:
        """Prints how many images there were, how well they were classified, and where to look."""
        line = f"{summary['n_images']:,} images"
        if summary["n_failed"]:
            line += f", of which {summary['n_failed']:,} failed (status and error in the rows)"
        if summary["top1"] is not None:
            line += f"; accuracy top-1 {summary['top1']:.1%}, top-5 {summary['top5']:.1%}"
        print(f"{line}\nRows, summary, figures: {self.out}\nLook at it: tensorboard --logdir {self.out}")


def _of_network(model: Any, name: str) -> Any:
    return getattr(model.network, name)


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
    keep_freed_memory()
    try:
        sys.exit(main())
    except (DataError, InputError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
