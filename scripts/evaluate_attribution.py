"""Computes attribution maps of every image of a folder and scores them, on any number of devices.

RUN gets a row for each image and method (results/*.parquet), summary.json, figures of the first images (figures/*.png,
and in TensorBoard), and config.yaml. The same command again continues an unfinished run.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lightning_modules import AttributionModule
from lightning_modules.metrics.randomization import FAILING_CORRELATION
from lightning_modules.running.cli import run_main
from lightning_modules.running.evaluation import EvaluationCLI

BOXES_HINT = (
    "Scores against boxes need some of the target class: name their folder, --data.boxes, or have them in shards. "
    "Others need none: --model.metrics '[AverageDrop, InsertionDeletion]'."
)


def main(args: list[str] | None = None) -> int:
    cli = EvaluationCLI(AttributionModule, description=__doc__, args=args)
    if cli.config["model.metrics"] is None and cli.config["data.boxes"] is None and cli.trainer.is_global_zero:
        print(f"The scores asked for by default are of boxes, and there is no --data.boxes. {BOXES_HINT}")
    summary = cli.evaluate()
    if summary is not None:
        print_summary(summary)
        cli.print_outcome(summary)
    return cli.exit_code(summary)


def print_summary(summary: dict) -> None:
    """Prints a table of the methods' scores, each a mean over the maps that could be scored, with its 95 % interval."""
    methods = summary["methods"]
    scores = list(next(iter(methods.values()))["scores"]) if methods else []
    unscored = [name for name in scores if not any(of_method["scores"][name]["n"] for of_method in methods.values())]
    table = Table(title="Attribution: mean and 95 % interval of each score")
    table.add_column("score", no_wrap=True)
    for method in methods:
        table.add_column(method, justify="right")
    table.add_column("maps scored", justify="right")
    for name in (name for name in scores if name not in unscored):
        rows = [of_method["scores"][name] for of_method in methods.values()]
        counts = sorted({row["n"] for row in rows})
        table.add_row(name, *map(_cell, rows), "-".join(str(n) for n in {counts[0]: 0, counts[-1]: 0}))
    table.add_row("maps that show nothing", *(str(of_method["n_degenerate"]) for of_method in methods.values()), "")
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    console.print(table)
    if unscored:
        print(f"No map could be scored: {', '.join(unscored)}. {BOXES_HINT}")
    for method in summary["failing_randomization"]:
        kept = methods[method]["scores"]["randomization_correlation"]["mean"]
        print(
            f"{method} fails the sanity check: while the network forgets what it has learnt, its maps keep a rank "
            f"correlation of {kept:.2f} with those before, on average; more than {FAILING_CORRELATION:g} fails."
        )


def _cell(score: dict) -> str:
    """Mean ± half the interval, as wide as its longer side."""
    if not score["n"]:
        return "-"
    return f"{score['mean']:.3f} ± {max(score['high'] - score['mean'], score['mean'] - score['low']):.3f}"


if __name__ == "__main__":
    run_main(main)
