"""Computes attribution maps of every image of a folder and scores them, on any number of devices.

RUN gets a row for each image and method (results/*.parquet), summary.json, figures of the first images (figures/*.png,
and in TensorBoard), and config.yaml. The same command again continues an unfinished run.
"""

from __future__ import annotations

from _cli import EvaluationCLI, run_main
from rich.console import Console
from rich.table import Table

from lightning_modules import AttributionModule


def main(args: list[str] | None = None) -> None:
    cli = EvaluationCLI(AttributionModule, group="attribution", description=__doc__, args=args)
    summary = cli.evaluate()
    if summary is not None:
        print_summary(summary)
        cli.print_outcome(summary)


def print_summary(summary: dict) -> None:
    """Prints a table of the methods' scores, each a mean over the images that could be scored."""
    scores = list(dict.fromkeys(name for row in summary["methods"].values() for name in row))
    table = Table(title="Attribution, mean over images (number scored)")
    table.add_column("method")
    for name in scores:
        table.add_column(name, justify="right")
    for method, row in summary["methods"].items():
        cells = [f"{cell['mean']:.3f} ({cell['n']})" if cell["n"] else "- (0)" for cell in row.values()]
        table.add_row(method, *cells)
    Console().print(table)
    if scores and not any(cell["n"] for row in summary["methods"].values() for cell in row.values()):
        print("No image could be scored. Scores need boxes of the target class: name their folder with --data.boxes.")


if __name__ == "__main__":
    run_main(main)
