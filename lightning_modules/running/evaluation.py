"""An evaluation on the command line: a test loop over what has no rows yet, and a RUN that may be continued."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import LightningDataModule
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser

from datamodules.batch import EvaluationData
from datamodules.writing import naming
from lightning_modules.evaluation import EvaluationModule
from lightning_modules.figures.saving import FigureFormat
from lightning_modules.networks.built_in.vgg16 import WEIGHTS_HELP
from lightning_modules.networks.loading import NETWORK_HELP
from lightning_modules.networks.options import PREPROCESSING
from lightning_modules.random_numbers import GENERATOR
from lightning_modules.results.report import first_paragraph, flat_settings, n_left_out
from lightning_modules.results.storage import done_paths, refuse_other_columns
from lightning_modules.running.arithmetic import arithmetic, compute_to_float32
from lightning_modules.running.cli import RunCLI
from lightning_modules.running.folder.finished_run import leave_what_was_found, show_what_was_found
from lightning_modules.running.folder.provenance import seeds, weights_sha256
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.folder.writer import RunWriter
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.running.progress import RunProgress


def run_evaluation(
    model_class: type[EvaluationModule],
    data_class: type[LightningDataModule],
    *,
    description: str | None,
    args: list[str] | None = None,
    callbacks: Sequence[type[Callback]] = (),
    defaults: Mapping[str, Any] | None = None,
) -> int:
    """Parses the options, evaluates what has no rows yet, prints what came out; returns the exit code.

    Args:
        model_class: Its constructor's options are ``--model.*``; their help is its docstring's.
        data_class: Its constructor's options are ``--data.*``. What of them the network knows, such as
            ``class_names``, is not asked for.
        description: What help says first.
        args: The options; None = those of the command line.
        callbacks: Further ones, made without arguments.
        defaults: Options -> values, where they differ from the constructors'.
    """
    cli = EvaluationCLI(model_class, data_class, callbacks, defaults, description=description or "", args=args)
    summary = cli.evaluate()
    if summary is None:  # not the first process
        return 0
    what = ("Images, rows" if (cli.out / "images").is_dir() else "Rows") + ", summary, figures"
    show_what_was_found(cli.writer.report, what, cli.out)
    return int(summary["n_failed"] > 0 and (cli.config["strict"] or summary["n_failed"] == summary["n_images"]))


class EvaluationCLI(RunCLI):
    """Runs a module's test loop over everything that has no rows yet, each exactly once; see :func:`run_evaluation`."""

    def __init__(
        self,
        model_class: type[EvaluationModule],
        data_class: type[LightningDataModule],
        extra: Sequence[type[Callback]] = (),
        defaults: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.extra = extra
        self.defaults = dict(defaults or {})
        self.classes = model_class, data_class
        if "root" not in inspect.signature(data_class).parameters:
            self.usage = "%(prog)s --out OUT [options]"
        # The data module shares the work out itself: Lightning's sampler repeats some where it does not divide.
        options |= {"use_distributed_sampler": False, "enable_checkpointing": False, "enable_model_summary": False}
        super().__init__(model_class, data_class, **options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        assert isinstance(parser, HelpfulParser)
        parser.add_argument("--overwrite", action="store_true", help="Delete what an earlier run left in RUN first.")
        parser.add_argument("--report", action="store_true", help="Make a page of the run to hand on: RUN/index.html.")
        parser.add_argument("--strict", action="store_true", help="Exit with 1 if a single image failed.")
        parser.add_argument(
            "--figure_format",
            type=FigureFormat,
            default="png",
            help="Files of the figures: png (110 pixels an inch), or pdf, vectors for print, beside each png.",
        )
        parser.set_defaults(self.defaults)
        parser.explain(HELP)  # the same for every module, so it does not stand in each one's docstring
        of_model, of_data = (inspect.signature(each).parameters for each in self.classes)
        prepared = PREPROCESSING if "preprocessing" in of_data else ()  # the data module's **preprocessing
        for name, known in KNOWN_BY_THE_MODEL.items():
            if name in of_data or name in prepared:
                parser.link_arguments("model", f"data.{name}", attrgetter(known), apply_on="instantiate")
        if "n_originals" in of_data and "n_figures" in of_model:
            parser.link_arguments("model.n_figures", "data.n_originals")

    def callbacks(self) -> list[Callback]:
        config = yaml.safe_load(self.settings)
        shown = flat_settings({group: config[group] for group in ("data", "model")})
        self.writer = RunWriter(self.out, self.config["figure_format"], self.command, shown)
        self.run_folder = self.writer.folder
        return [*(callback() for callback in self.extra), RunProgress(), self.writer]

    def evaluate(self) -> dict[str, Any] | None:
        """Tests what has no rows yet; on the first rank, returns the summary of all rows, also saved."""
        compute_to_float32()
        data: EvaluationData = self.datamodule
        if self.trainer.limit_test_batches == 0:
            raise RunError("--trainer.limit_test_batches 0 leaves no image: 1 is a batch, 1.0 all of them.")
        if data.begin_run(self.out, partial(done_paths, self.writer.rows), self.trainer.limit_test_batches):
            self.trainer.limit_test_batches = 1.0
        try:
            if self.trainer.is_global_zero:
                self._open_run()
            with naming(self.out):
                self.trainer.test(self.model, data, verbose=False)
                return self._close_run() if self.trainer.is_global_zero else None
        finally:
            self.run_folder.unlock()

    def _open_run(self) -> None:
        """Locks RUN and makes sure that what it holds, if anything, came from the same settings and inputs."""
        run = self.run_folder
        # Before anything is written or deleted: a slip in the name of the images costs nothing.
        self.model.check_data(self.datamodule)
        self.inputs = {"weights_sha256": weights_sha256(self.model.network), "data": self.datamodule.fingerprint()}
        if seeds(self.model):
            self.inputs["random_numbers"] = GENERATOR
        if helpers := self.model.helpers:
            self.inputs["helpers_sha256"] = {name: weights_sha256(helper) for name, helper in helpers.items()}
        places = {name: self.config.get(f"data.{name}") for name in ("root", "boxes", "exemplars")}
        paths = {name: Path(place).expanduser() for name, place in places.items() if place is not None}
        self.inputs["paths"] = {name: os.path.realpath(path) for name, path in paths.items()}
        run.lock()
        # A run that ended before its first rows leaves its settings alone; they may be corrected.
        fixed = run.has_rows() and not self.config["overwrite"]
        if not fixed:
            run.clear(list(paths.values()))
        else:
            run.refuse_other_version()
        run.remove_unfinished()
        run.settle("config.yaml", self.settings, fixed=fixed)
        run.settle("inputs.json", json.dumps(self.inputs, indent=2) + "\n", fixed=fixed)
        if fixed:
            refuse_other_columns(self.writer.rows, self.model.schema)
        run.begin_session(self.command)

    def _close_run(self) -> dict[str, Any]:
        """Writes ``summary.json``: of all rows, and of what produced them."""
        run, summary = self.run_folder, self.writer.summary
        if summary is None:
            raise RunError(f"Nothing was computed into {self.out}: its images were all left out.")
        run.end_session()
        if not run.has_grown():
            which = "image that the limit lets through" if n_left_out(summary) else "image"
            print(f"Nothing was left to compute: every {which} has its rows.")
        produced_by = {
            **self.inputs,
            "network": self.model.network.description(),
            **({"notes": list(notes)} if (notes := getattr(self.datamodule, "notes", ())) else {}),
            **self.model.facts(self.out),
            "seeds": {"data": self.config.get("data.seed"), **seeds(self.model)},
            "devices": self.writer.devices,
            "threads": torch.get_num_threads(),
            "arithmetic": arithmetic(self.trainer.precision, self.model.network.is_compiled),
            "sessions": run.n_sessions(),
            "wall_time_s": round(run.wall_time(), 3),
        }
        report = replace(self.writer.report, about=first_paragraph(self.parser.description or ""))
        leave_what_was_found(run, summary, report, produced_by, self.config["report"])
        return summary


HELP = {"model.weights": f"{WEIGHTS_HELP}.", "model.network": f"{NETWORK_HELP}."}

KNOWN_BY_THE_MODEL = {
    **{name: f"network.{name}" for name in ("class_names", *PREPROCESSING)},
    "channels": "network.layer_channels",
    "layer": "objective.layer",
}
"""Options of data modules that are not asked for, and where the model has them."""
