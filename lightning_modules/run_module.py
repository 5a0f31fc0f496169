"""What a run asks of its LightningModule: rows and figures of a step, their schema, their summary, its report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.figures.saving import Drawing
from lightning_modules.networks.network import Network
from lightning_modules.results.report import Report
from lightning_modules.results.rows.images import Row, Rows
from lightning_modules.results.tables import Table


class Outputs(TypedDict):
    """What a test step gives.

    Attributes:
        rows: Columns by their names.
        figures: Of some images, by their numbers in the batch: a figure, or what draws one when it is saved.
        images: Made images, file name -> uint8 ``(H, W, 3)``.
        pictures: Other images, file in RUN -> uint8 ``(H, W, 3)``.
        kept: What is kept beside the rows, name of a folder in RUN -> a row for each image that did not fail.
    """

    rows: list[Row]
    figures: dict[int, Figure | Drawing]
    images: NotRequired[dict[str, np.ndarray]]
    pictures: NotRequired[dict[str, np.ndarray]]
    kept: NotRequired[dict[str, pa.Table]]


def refuse_rounded_weights(network: nn.Module) -> None:
    """Asks that the weights, and so the pixels that meet them, are at least float32.

    Raises:
        InputError: If any is not: ``trainer.precision`` bf16-true and 16-true make all of them so.
    """
    for dtype in {parameter.dtype for parameter in network.parameters()} & {torch.bfloat16, torch.float16}:
        raise InputError(
            f"The network's weights are {dtype}, which rounds pixels, gradients, and budgets such as 1/255. Use "
            "trainer.precision bf16-mixed or 16-mixed, which keep weights and pixels in float32; a module that is in "
            "half precision by itself needs module.float()."
        )


class RunModule(pl.LightningModule, ABC):
    """What a run asks of its module, beside the test steps: see ``lightning_modules.running``.

    Attributes:
        network: From pixels in [0, 1] to logits.
        n_figures: Images of which a figure is drawn.
        seconds_per_part: How long rows may wait before they are written: what a crash can lose at most.
    """

    seconds_per_part = 60.0

    def __init__(self, network: Network, n_figures: int) -> None:
        super().__init__()
        if n_figures < 0:
            raise InputError(f"model.n_figures must be at least 0, got {n_figures}.")
        self.network = network
        self.n_figures = n_figures

    @property
    @abstractmethod
    def schema(self) -> pa.Schema:
        """Columns of the rows."""

    @abstractmethod
    def summarize(self, table: Rows) -> dict[str, Any]:
        """The summary of all rows of a run, as plain values; it has ``n_images`` and ``n_failed``.

        Args:
            table: A ``pyarrow.Table``, or what does the same of rows in a folder: ``table[name]`` reads that column,
                ``table.to_pandas()`` all.
        """

    @abstractmethod
    def report(self, summary: dict[str, Any]) -> Report:
        """What the run has to say, from its summary."""

    @property
    def n_listed(self) -> int | None:
        """How many images the run is of, also those that a limit leaves out; None = nobody has counted them."""
        return getattr(self.trainer.datamodule, "n_listed", None)  # type: ignore[attr-defined]

    @property
    def helpers(self) -> dict[str, Network]:
        """Networks beside :attr:`network` that numbers come from, by what ``summary.json`` calls them."""
        return {}

    def check_data(self, data: Any) -> None:
        """Whether what a data module names can be computed as asked; called before anything is written.

        Raises:
            InputError: If it cannot.
        """

    def on_test_start(self) -> None:
        refuse_rounded_weights(self.network)
        self.check_data(self.trainer.datamodule)  # type: ignore[attr-defined]

    def prepare_run(self, run: Path) -> None:
        """Computes, on the first process, what the run needs beside its rows; a continued run calls it again."""

    def facts(self, run: Path) -> dict[str, Any]:
        """What is known of a run beside its rows, as plain values for ``summary.json``: what its helpers are."""
        return {name: helper.description() for name, helper in self.helpers.items()}

    def details(self, run: Path) -> list[Table]:
        """What the terminal shows of single rows, before the report, from what lies in the run's folder."""
        return []

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """Figures of the whole run with their file names, from its summary and from what lies in its folder."""
        yield from ()
