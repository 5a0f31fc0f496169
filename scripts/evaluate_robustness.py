"""Attacks every image of a folder under a sweep of budgets, on any number of devices: how easily is the network fooled?

RUN gets a row for each image and budget (results/*.parquet; eps 0 = clean), summary.json, figures of the first images
and the accuracy over eps (figures/*.png, and in TensorBoard), and config.yaml. The same command again continues an
unfinished run.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from lightning_modules import RobustnessModule
from lightning_modules.attacks.budgets import format_eps
from lightning_modules.running.cli import run_main
from lightning_modules.running.evaluation import EvaluationCLI


class LabelCheck(Callback):
    """Refuses a folder whose labels do not fit the attack, before the first batch."""

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        pl_module.check_labels(trainer.datamodule.listing.labels)


class RobustnessCLI(EvaluationCLI):
    """An evaluation that has FGSM as its attack unless told otherwise, and checks the labels first."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        # So that --model.attack.norm 2 need not name the attack.
        parser.set_defaults({"model.attack": {"class_path": "lightning_modules.FGSM"}})

    def callbacks(self) -> list[Callback]:
        return [LabelCheck(), *super().callbacks()]


def main(args: list[str] | None = None) -> int:
    cli = RobustnessCLI(RobustnessModule, description=__doc__, args=args)
    summary = cli.evaluate()
    if summary is not None:
        print_summary(summary)
        print_gradients(summary, getattr(cli.model.attack, "unsaturate", None))
        cli.print_outcome(summary)
    return cli.exit_code(summary)


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a table of the budgets: accuracy under attack, success, and how far explanations moved."""
    table = Table(title=f"Robustness; success is over the {summary['n_attacked']:,} images that could be fooled")
    methods = list(summary["sweep"][0]["methods"]) if summary["sweep"] else []
    for name in ("eps", "top-1", "top-5", "success", "L∞", "L2"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in methods:
        table.add_column(f"{name}: rank corr. / top 15 % (of maps that show something)", justify="right")
    table.add_row("0 (clean)", _share(summary["clean_acc"]), _share(summary["clean_acc_top5"]), "", "", "")
    for row in summary["sweep"]:
        moved = [
            f"{_number(m['rank_correlation'])} / {_share(m['top_overlap'])} ({m['n']})" for m in row["methods"].values()
        ]
        shares = [_share(row[name]) for name in ("robust_acc", "robust_acc_top5", "attack_success_rate")]
        table.add_row(format_eps(row["eps"]), *shares, f"{row['linf']:.4f}", f"{row['l2']:.3f}", *moved)
    Console().print(table)
    median = summary["median_smallest_eps"]
    print(f"Median smallest eps that fools an image: {'above the sweep' if median is None else format_eps(median)}")


def print_gradients(summary: dict[str, Any], unsaturate: bool | None) -> None:
    """Says how many images only look robust, and what to do about it."""
    if not summary["n_saturated"] and not summary["n_vanished"]:
        return
    if summary["n_saturated"]:
        print(
            f"The network is so sure of {summary['n_saturated']:,} images that float32 rounds their probability to 1."
        )
    if summary["n_vanished"]:
        print(f"The gradient of {summary['n_vanished']:,} images vanished, so the attack left them as they were.")
    if summary["n_saturated"] and unsaturate is False:
        print("They look more robust than they are. The remedy: --model.attack.unsaturate true")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    run_main(main)
