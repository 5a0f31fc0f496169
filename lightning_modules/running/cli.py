"""What the scripts share: Lightning's command line, with ``--out RUN`` and errors a user can act on."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from datamodules.batch import DataError
from datamodules.text import Text
from lightning_modules.errors import InputError
from lightning_modules.gradients.memory import keep_freed_memory
from lightning_modules.running import stopping
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.running.starts import (
    LONGEST_WAIT,
    TRAINER_REFUSES,
    WITHOUT_EFFECT_IN_A_TEST,
    refuse_what_has_no_effect,
    refuse_what_leaves_no_run,
)
from lightning_modules.text import plain_lines, show_warnings_plainly


class ProgressBar(RichProgressBar):
    """Lightning's, which lets the processes of a training wait for each other at the same places.

    At the end of an epoch the bar of the first process reads the metrics, which makes it wait for those of the others.
    """

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, int | str | float | dict]:
        # The last letters of the logger's folder, which is always called the same, tell nothing.
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _ = trainer.progress_bar_metrics  # in all processes, before any callback or module waits for something else
        super().on_train_epoch_end(trainer, pl_module)


class RunCLI(LightningCLI):
    """Parses the options, builds model, data and trainer, and gives everything that a run leaves to ``--out``.

    The Trainer gets a TensorBoard logger in ``RUN/tensorboard`` and a progress bar. ``run`` is False: the script says
    what is to be done with the parts.
    """

    trainer_options: tuple[str, ...] = (
        *("accelerator", "devices", "num_nodes", "strategy", "precision"),
        *("limit_test_batches", "enable_progress_bar"),
    )
    """Options of Lightning's Trainer that help shows."""

    without_effect: Sequence[str] = WITHOUT_EFFECT_IN_A_TEST
    """Options of it that would be ignored."""

    usage = "%(prog)s --data.root ROOT --out OUT [options]"

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
        quieten()
        import_from_here()
        self.words = sys.argv[1:] if args is None else args
        self.command = as_typed(["python", sys.argv[0], *self.words])
        super().__init__(
            model_class,
            data_class,
            save_config_callback=None,
            trainer_defaults=trainer_defaults,
            seed_everything_default=False,
            subclass_mode_data=any_data,
            parser_class=HelpfulParser,
            parser_kwargs={"description": description, "usage": self.usage},
            args=args,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        assert isinstance(parser, HelpfulParser)
        parser.trainer_options = self.trainer_options
        parser.add_argument("--out", type=Text, required=True, help="Folder for everything that the run leaves (RUN).")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except (AttributeError, KeyError, TypeError) as error:  # the parser's own, about files of odd structure
            parser.error(f"the options cannot be understood: {error}")
        seed = self.config.get("seed_everything")
        if type(seed) is int and not 0 <= seed < 2**32:
            raise RunError(f"--seed_everything should be from 0 to {2**32 - 1}, got {seed}.")

    @property
    def out(self) -> Path:
        return Path(self.config["out"]).expanduser()

    def callbacks(self) -> list[Callback]:
        """The callbacks of this script, beside those that the user configures."""
        return []

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        refuse_what_has_no_effect(self.config["trainer"], self.parser.get_defaults()["trainer"], self.without_effect)
        StrategyRegistry.register("ddp", DDPStrategy, override=True, start_method="popen", timeout=LONGEST_WAIT)
        config = self.config_init["trainer"]
        logger = TensorBoardLogger(str(self.out), name="", version="tensorboard")
        bar = [] if config.get("enable_progress_bar") is False else [ProgressBar(leave=True)]
        given = config.get("callbacks") or ()
        try:
            trainer = super().instantiate_trainer(
                logger=logger if config.get("logger") in (None, True) else config["logger"],
                callbacks=[*(given if isinstance(given, list | tuple) else [given]), *bar, *self.callbacks()],
                **kwargs,
            )
        except TRAINER_REFUSES as error:
            raise RunError(f"The trainer's options do not fit: {str(error) or type(error).__name__}") from error
        refuse_what_leaves_no_run(trainer)
        stopping.take_over(trainer.strategy.launcher)
        return trainer

    @property
    def settings(self) -> str:
        """All options, as ``--config`` reads them back."""
        # Without what would delete the results of whoever repeats them.
        config, defaults = self.config.clone(), self.parser.get_defaults()
        config.pop("overwrite", None)
        for name in [name for name, value in config.items() if value is None]:
            if name in defaults and defaults[name] is None:
                config.pop(name)  # elsewhere null says something that saying nothing does not
        return self.parser.dump(config, skip_validation=True, skip_unset=False)


def quieten() -> None:
    """Leaves out Lightning's advertisement, and its warnings about things that are chosen here, not by the user."""
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"pytorch_lightning.{name}").addFilter(_is_of_use)
    for message in (
        "`isinstance.treespec, LeafSpec.` is deprecated",
        ".*does not have many workers",
        "LightningCLI's args parameter",  # of a run that is read back
        "Total length of `.*` across ranks is zero",  # a run that is complete, or has fewer images than devices
    ):
        warnings.filterwarnings("ignore", message)


def _is_of_use(record: logging.LogRecord) -> bool:
    return not any(words in str(record.msg) for words in ("litlogger", "TPU available", "Received SIGTERM"))


def import_from_here() -> None:
    """Lets what the user names by its import path lie in the folder they work in."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def as_typed(words: Sequence[str]) -> str:
    """A command line as it is typed, an option a line.

    Example:
        >>> print(as_typed(["python", "predict.py", "my cat.png", "--top_k", "1"]))
        python predict.py 'my cat.png' \\
            --top_k 1
    """
    return "".join(f" \\\n    {word}" if word[:2] == "--" else f" {word}" for word in map(shlex.quote, words)).lstrip()


def run_main(main: Callable[[], int | None]) -> None:
    """Runs a script's ``main`` and exits with what it returns.

    An error of the user's input is printed as a line, with exit code 2, and so is one of the file system. A run that
    was stopped by a signal exits with 128 + the signal's number, as shells have it.
    """
    quieten()
    show_warnings_plainly()
    keep_freed_memory()
    threading.excepthook = leave_errors_of_the_disk_to_the_main_thread
    stopping.listen()
    try:
        code = main()
    except Exception as error:
        told = _sentence_of(error)
        if stopping.has_companions():
            trace = "".join(traceback.format_exception(error)).rstrip()
            stopping.end_with_companions(told or trace, 2 if told else 1)
        if told is None:
            raise
        print(told, file=sys.stderr)
        code = 2
    finally:
        stopping.finish()
    sys.exit(code)


def leave_errors_of_the_disk_to_the_main_thread(args: threading.ExceptHookArgs) -> None:
    """Prints an error of a thread, as Python does, unless it is one that TensorBoard's thread hands on."""
    if not (isinstance(args.exc_value, OSError) and args.exc_value.errno in stopping.OF_THE_DISK):
        threading.__excepthook__(args)


def _sentence_of(error: Exception) -> str | None:
    """What is said of an error that is the user's to mend; None = it is another one."""
    ours = (DataError, InputError, RunError, MisconfigurationException)
    if isinstance(error, ours):
        return f"error: {plain_lines(str(error))}"
    # jsonargparse wraps what is raised while it passes a value from one part to the next.
    if isinstance(error, ValueError) and isinstance(error.__cause__, ours):
        return f"error: {plain_lines(str(error.__cause__))}"
    if isinstance(error, OSError) and error.errno in stopping.OF_THE_DISK:
        return f"error: {plain_lines(str(_first_that_names(error)))}. {stopping.WRITTEN}"
    return None


def _first_that_names(error: OSError) -> OSError:
    """Of errors that came one while the other was handled, as where a disk is full, the first that names a file."""
    found, each = error, error.__context__
    while each is not None:
        found = each if isinstance(each, OSError) and each.filename is not None else found
        each = each.__context__
    return found
