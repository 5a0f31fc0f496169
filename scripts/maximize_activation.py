"""Makes images of what a network takes for its classes, or of what excites channels, on any number of devices.

RUN gets a PNG for each image (images/), a row for each (results/*.parquet), summary.json, contact sheets and figures of
how the first images grew (figures/*.png, and in TensorBoard), and config.yaml. --model.ablation true makes each image
four times, without and with the total-variation loss and the random shifts, and adds figures/ablation.png. The same
command again continues an unfinished run.
"""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules import ClassIndexDataModule
from lightning_modules import (
    ActivationMaximizationModule,
    FigureWriter,
    ImageWriter,
    RowWriter,
    SheetWriter,
    SynthesisProgress,
)
from lightning_modules.activation_maximization import worst
from lightning_modules.results.report import describe_images
from lightning_modules.results.rows import read_rows
from lightning_modules.running.cli import run_main
from lightning_modules.running.evaluation import TestCLI
from lightning_modules.synthesis import VARIANTS

MOST_ROWS = 32
COLUMNS = {
    "activation": ("activation", ".2f"),
    "activation_shifted": ("shifted", ".2f"),
    "probability": ("p", ".4f"),
    "probability_shifted": ("p shifted", ".4f"),
    "total_variation": ("TV", ".4f"),
}
"""Column of the rows -> what it is called in the terminal, and its format."""


class MaximizationCLI(TestCLI):
    usage = "%(prog)s --out OUT [options]"

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        for name, of_model in (("class_names", _class_names), ("channels", _channels), ("layer", _layer)):
            parser.link_arguments("model", f"data.{name}", of_model, apply_on="instantiate")

    def callbacks(self) -> list[Callback]:
        rows, images, figures = (self.out / name for name in ("results", "images", "figures"))
        # An image is written before its row, which says that it is done; sheets are drawn when all ranks have ended.
        return [
            SynthesisProgress(self._get(self.config, "model.n_figures")),
            ImageWriter(images),
            FigureWriter(figures, self.figure_format),
            # Images take long, so rows do not wait for each other.
            RowWriter(rows, seconds_per_part=5.0),
            self.summarizer,
            SheetWriter(rows, images, figures, self.figure_format),
            self.report_writer(),
            *super().callbacks(),
        ]


def _class_names(model: Any) -> list[str]:
    return model.network.class_names


def _channels(model: Any) -> dict[str, int]:
    return model.network.layer_channels


def _layer(model: Any) -> str | None:
    return model.objective.layer


def main(args: list[str] | None = None) -> int:
    cli = MaximizationCLI(ActivationMaximizationModule, ClassIndexDataModule, description=__doc__, args=args)
    summary = cli.evaluate()
    if summary is not None:
        rows = read_rows(cli.out / "results").to_pylist()
        print_rows(rows)
        print_summary(summary)
        print(f"{describe_images(summary)}\nImages, rows, summary, figures: {cli.out}")
        print(f"Look at it: tensorboard --logdir {cli.out}")
    return cli.exit_code(summary)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Prints the numbers of the images; of many, those that hold least under fresh shifts."""
    good = [row for row in rows if row["status"] == "ok"]
    title = "Images"
    if len(good) > MOST_ROWS:
        title = f"The {MOST_ROWS} of {len(good)} images that hold least under fresh shifts"
        good = sorted(good, key=_strength)[:MOST_ROWS]
    else:
        good = sorted(good, key=lambda row: (row["name"], row["seed"], VARIANTS.index(row["variant"])))
    table = Table("image", title=title)
    for name in (*(name for name, _ in COLUMNS.values()), "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    several_variants, several_seeds = (len({row[name] for row in good}) > 1 for name in ("variant", "seed"))
    for row in good:
        cells = ["-" if row[name] is None else format(row[name], form) for name, (_, form) in COLUMNS.items()]
        label = row["name"]
        if several_seeds:
            label += f", seed {row['seed']}"
        if several_variants:
            label += f": {row['variant']}"
        table.add_row(escape(label), *cells, f"{row['seconds']:.1f}")
    Console().print(table)
    for row in rows:
        if row["status"] != "ok":
            Console().print(f"[red]failed[/red] {escape(row['path'])}: {escape(row['error'])}", soft_wrap=True)


def _strength(row: dict[str, Any]) -> float:
    held = row["probability_shifted"]
    return row["activation_shifted"] if held is None else held


def print_summary(summary: dict[str, Any]) -> None:
    """Prints for each variant the mean of each number, and that of the worst image."""
    table = Table("variant", "n", title="Mean over images (worst)")
    for name, _ in COLUMNS.values():
        table.add_column(name, justify="right")
    for variant, numbers in summary["variants"].items():
        cells = [
            f"{numbers[name]['mean']:{form}} ({worst(name, numbers[name]):{form}})" if name in numbers else "-"
            for name, (_, form) in COLUMNS.items()
        ]
        table.add_row(variant, str(numbers["n"]), *cells)
    Console().print(table)


if __name__ == "__main__":
    run_main(main)
