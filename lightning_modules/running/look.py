"""A look at rows of a run that were chosen afterwards: RUN/looks, and a section of the page of the run."""

from __future__ import annotations

import inspect
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
import yaml
from jsonargparse.typing import PositiveInt
from torch import Tensor

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.errors import InputError
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.figures.saving import figure_name, save_figure
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.pages.runs import LOOKS
from lightning_modules.results.choosing import SHOW, Choice, choose, rows_to_choose_from
from lightning_modules.results.maps import FOLDER, StoredMaps, read_maps
from lightning_modules.results.report import Report
from lightning_modules.results.storage import Row
from lightning_modules.results.tables import Table
from lightning_modules.running.again import made_again
from lightning_modules.running.cli import as_typed
from lightning_modules.running.folder.board import Board
from lightning_modules.running.folder.finished_run import leave_beside, read_summary
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.pairs import draw_pairs, rows_of_pairs
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.text import plain_name

Classes = Sequence[tuple[type[EvaluationModule], Any]]
"""Modules and data modules that a run may be of."""


def run_look(classes: Classes, *, description: str | None, args: list[str] | None = None) -> int:
    """Parses the options, draws the images of the rows that they choose, and returns the exit code.

    Args:
        classes: The module and the data module of each kind of run of images.
        description: What help says first.
        args: The options; None = those of the command line.
    """
    words = sys.argv[1:] if args is None else list(args)
    options, parser = _parsed(description or "", words)
    run = Path(options.run).expanduser()
    summary, settings = read_summary(run), yaml.safe_load((run / "config.yaml").read_text())
    rows = rows_of_pairs(run, settings) if "runs" in settings else rows_to_choose_from(run)
    sort = [name.strip() for name in (options.sort or "").split(",") if name.strip()]
    choice = choose(rows, where=options.where, sort=sort, show=options.show, better=summary.get("better"))
    if choice.rows.empty:
        raise InputError(f"No row of {run} fits: {choice.words}.")
    paths = choice.paths(options.n)
    name = options.name or options.show or options.where or options.sort or "first"
    out = run / LOOKS / (plain_name(name).strip("_.")[:60] or "look")
    shutil.rmtree(out, ignore_errors=True)
    (out / "figures").mkdir(parents=True)
    try:
        _draw(run, settings, choice, paths, classes, out / "figures")
    except BaseException:
        shutil.rmtree(out)
        raise
    n_drawn = len(list((out / "figures").glob("*.png")))
    fit = f"{len(choice.rows):,} of {len(rows):,} rows fit, of {choice.rows['path'].nunique():,} images"
    report = Report(
        about=f"{choice.words[0].upper()}{choice.words[1:]}.",
        counts=f"{fit}; {n_drawn} of them are drawn",
        tables=[_table(choice, paths)],
        legend=Report.load(run).legend,
    )
    command = as_typed(["python", sys.argv[0], *words])
    found = {"choice": choice.words, "n_rows": len(choice.rows), "n_images": len(paths), "n_failed": 0, "images": paths}
    board = Board(out / "tensorboard", out / "figures")
    board.show_figures()
    board.writer.add_text("look", f"{report.about}\n\n{report.markdown()}", 0)
    board.close()
    settings = parser.dump(options, skip_validation=True)
    leave_beside(run, out, "Figures", report, {**found, "command": command}, settings)
    return 0


def _parsed(description: str, words: list[str]) -> tuple[Any, HelpfulParser]:
    parser = HelpfulParser(description=description, usage="%(prog)s RUN [options]")
    parser.add_argument("run", type=str, help="Folder of a run that has ended, or of a comparison.")
    parser.add_argument("--show", type=str, help=f"What to look at: {', '.join(SHOW)}.")
    parser.add_argument("--where", type=str, help="A condition on the columns of the rows, as pandas' query takes it.")
    parser.add_argument("--sort", type=str, help="Columns to sort by, with commas between; -NAME from the largest on.")
    parser.add_argument("--n", type=PositiveInt, default=16, help="Images to draw, the first of those that fit.")
    parser.add_argument("--name", type=str, help="Of the folder in RUN/looks. null = by what was chosen.")
    joined, rest = [], list(words)
    while rest:
        joined.append(rest.pop(0))
        if joined[-1] in ("--sort", "--show") and rest:  # --sort -probability and --show worst SCORE are one value each
            n = 2 if joined[-1] == "--show" and rest[0] in ("worst", "best", "changed") else 1
            joined[-1] += f"={' '.join(rest[:n])}"
            del rest[:n]
    return parser.parse_args(joined), parser


def _table(choice: Choice, paths: Sequence[str]) -> Table:
    """The chosen rows of the images that are drawn, with the columns that they were chosen by."""
    known = [name for name in ("method", "eps", "label_name", "prediction_name") if name in choice.rows.columns]
    names = list(dict.fromkeys(["path", *known, *choice.columns]))
    order = {path: k for k, path in enumerate(paths)}
    shown = choice.rows[choice.rows["path"].isin(paths)]
    shown = shown.sort_values("path", key=lambda column: column.map(order), kind="stable")[names]
    rows = [[_cell(name, value) for name, value in zip(names, row)] for row in shown.to_numpy(dtype=object)]
    return Table(names, rows, n_left=len(names))


def _cell(name: str, value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return "-"
    if name == "eps":
        return format_eps(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(
    run: Path, settings: Mapping[str, Any], choice: Choice, paths: Sequence[str], classes: Classes, out: Path
) -> None:
    """Draws images of a run, in the order of their paths."""
    rows = choice.rows[(choice.rows["status"] == "ok") & choice.rows["path"].isin(paths)]
    if "runs" in settings:
        draw_pairs(run, rows, lambda each, some, folder: _draw_anew(each, some, classes, folder), out)
    elif "image" in rows.columns:
        for k, image in enumerate(rows["image"].drop_duplicates()):
            shutil.copyfile(run / "images" / image, out / f"{figure_name(k, image)}.png")
    elif len(rows):
        _draw_anew(run, rows, classes, out)


def _draw_anew(run: Path, rows: pd.DataFrame, classes: Classes, out: Path) -> None:
    """Draws the images of rows as the run does, by its own network: their kept maps, or maps of them alone.

    Raises:
        RunError: If what the run was of is not there any more.
    """
    model_class, data_class = _classes_of(run, classes)
    cli = made_again(run, model_class, data_class, "--model.n_figures", str(2**31), "--model.metrics", "[]")
    model: Any = cli.model
    trainer: Any = cli.trainer
    if any((run / FOLDER).glob("*.arrow")):
        stored = read_maps(run)
        model.methods = {name: _KeptMap(name, stored) for name in model.methods}
    if "eps" in rows.columns:  # the clean image has no budget of its own: then that which a run shows
        model.shown_eps = dict(zip(rows["path"][::-1], rows["eps"][::-1]))
    order = {path: k for k, path in enumerate(rows["path"].drop_duplicates())}
    drawn = _Drawn(order, out)
    cli.datamodule.setup("test")
    others = set(cli.datamodule.source.names()) - order.keys()
    with tempfile.TemporaryDirectory() as folder:
        cli.datamodule.begin_run(Path(folder), lambda: others, 1.0)
        trainer.callbacks, trainer.logger = [drawn], None
        trainer.test(model, cli.datamodule, verbose=False)
    before = rows.drop_duplicates("path").set_index("path")
    for row in drawn.rows:
        if row["status"] != "ok" or row["fingerprint"] != before.loc[row["path"], "fingerprint"]:
            why = row["error"] or "it has changed"
            raise RunError(f"{row['path']} is not the image any more that {run} was made of: {why}.")


def _classes_of(run: Path, classes: Classes) -> tuple[type[EvaluationModule], Any]:
    """The module and the data module that a run was made by: those whose options its settings are."""
    known = yaml.safe_load((run / "config.yaml").read_text())["model"].keys()
    for model_class, data_class in classes:
        if known <= {*inspect.signature(model_class).parameters, *NetworkOptions.__annotations__}:
            return model_class, data_class
    raise RunError(f"{run} is of an evaluation that cannot be drawn again here: its own script can, by run_look.")


class _Drawn(pl.Callback):
    """Saves the figures of images, and keeps their rows.

    Args:
        order: Path -> its place.
        out: Where to.
    """

    def __init__(self, order: Mapping[str, int], out: Path) -> None:
        self.order = order
        self.out = out
        self.rows: list[Row] = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Outputs,  # type: ignore[override]
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for i, figure in outputs["figures"].items():
            path = batch["path"][i]
            save_figure(figure, self.out, figure_name(self.order[path], path))
        self.rows += outputs["rows"]


class _KeptMap(AttributionMethod):
    """In place of a method: the maps of it that a run kept.

    Args:
        name: Of the method.
        stored: What was kept.
    """

    def __init__(self, name: str, stored: StoredMaps) -> None:
        self.name = name
        self.stored = stored

    def __repr__(self) -> str:
        return self.name

    def needs(self, network: Network) -> Needs:
        return Needs()

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        maps = torch.stack([self.stored.enlarged(path)[self.name] for path in forward_pass.keys])
        return maps.to(forward_pass.images)
