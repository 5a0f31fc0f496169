"""What all evaluations share: a LightningModule that makes rows and figures of batches, and a report of all rows.

A module says what it computes of one batch. No image is skipped and no result is lost: images that could not be read
become failed rows, and a batch that does not fit in the device's memory is computed in parts.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from datamodules.batch import Batch, with_pixels
from lightning_modules.errors import InputError
from lightning_modules.figures.attribution import drawings_of_images
from lightning_modules.figures.comparison import histograms_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.gradients.fitting import results_of_parts, split_batch
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.host import on_host
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.results.arrays import check_room
from lightning_modules.results.report import Report
from lightning_modules.results.rows import (
    IMAGE_FIELDS,
    failed_rows,
    image_columns,
    logit_stats,
    with_columns,
    with_failures_alone,
)
from lightning_modules.results.storage import Row, Rows, read_rows
from lightning_modules.results.summaries.images import report_images, summarize_columns
from lightning_modules.results.tables import Table

SECONDS_BETWEEN_ROWS = 60.0
"""A batch that takes longer is computed in parts."""

PASSES_TO_TRY_ONE = 500
"""If the network sees so many images for a first batch, its first image is computed alone, to learn how long one takes.
"""


class Outputs(TypedDict):
    """What a test step returns.

    Attributes:
        rows: Column name -> value.
        figures: Number of an image in the batch -> its figure, or a function that draws it when it is saved.
        images: Synthesized images, file name -> uint8 ``(H, W, 3)``.
        pictures: Other images, path in RUN -> uint8 ``(H, W, 3)``.
        arrays: Folder in RUN -> a table with a row of arrays for each image that did not fail.
    """

    rows: list[Row]
    figures: dict[int, Figure | Drawing]
    images: NotRequired[dict[str, np.ndarray]]
    pictures: NotRequired[dict[str, np.ndarray]]
    arrays: NotRequired[dict[str, pa.Table]]


class EvaluationModule(pl.LightningModule, ABC):
    """Computes something of each image of a data set. A subclass says what, by :meth:`evaluate`.

    With :attr:`columns` and :meth:`outputs` that is all: the rows hold one row an image, the summary the mean of each
    column with its interval, the figures the first images and a histogram of each column. A subclass with several rows
    an image, or with more to report, overrides the methods in question.

    Args:
        network: From pixels in [0, 1] to logits.
        n_figures: Images of which a figure is drawn: the first of each class in turn.

    Attributes:
        better: Column -> whether ``higher`` or ``lower`` is better, where that is known: by these the worst and best
            images are listed.
        target: The class that is explained or attacked: "predicted", "label" (the folder's), another word, or an index.
        part_listeners: Callbacks with ``on_part_end``, which take a part of a batch.
        n_in_hand: How many images are being computed, and have no rows yet.
        seconds_per_part: How long rows may wait before they are written: what a crash can lose at most.
    """

    columns: tuple[str, ...] = ()
    """Names of the numbers in the rows, beside the columns that every row has."""

    verb = "explain"
    """What is done to the target, for messages."""

    seconds_per_part = 60.0

    def __init__(self, network: Network, n_figures: int = 16) -> None:
        super().__init__()
        if n_figures < 0:
            raise InputError(f"model.n_figures must be at least 0, got {n_figures}.")
        self.network = network
        self.n_figures = n_figures
        self.better: dict[str, str] = {}
        self.target: str | int = "predicted"
        self.part_listeners: list[Any] = []
        self.n_in_hand = 0
        self.seconds_per_image: float | None = None  # unknown before the first image

    @abstractmethod
    def evaluate(self, batch: Batch) -> Outputs:
        """The rows and figures of a batch of at least one image. The rows of an image must depend on that image alone.

        The images are floating-point, in [0, 1]. The batch may be a part of the one that the test step got. If any row
        of an image is ``failed``, only that row is kept, and no figure.
        """

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        return pa.schema([*IMAGE_FIELDS, *(pa.field(name, pa.float64()) for name in self.columns)])

    @property
    def helpers(self) -> dict[str, Network]:
        """Other networks that numbers come from, by their names in ``summary.json``."""
        return {}

    @property
    def n_listed(self) -> int | None:
        """How many images the run is of, with those that a limit leaves out; None = not counted."""
        return getattr(self.trainer.datamodule, "n_listed", None)  # type: ignore[attr-defined]

    def n_to_compute(self) -> int | None:
        """How many images have no rows yet, at the most; None = not counted."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        world = self.trainer.world_size
        return sum(map(data.n_left, range(world), [world] * world)) if hasattr(data, "n_left") else None

    def passes(self) -> dict[str, int]:
        """About how many images the network sees for each one beside the image itself, by what needs them."""
        return {}

    def bytes_kept(self) -> dict[str, int]:
        """Bytes that are stored for each image beside its rows, at the most, by the option that asks for them."""
        return {}

    def check_data(self, data: Any) -> None:
        """Checks, before anything is written, that the images of a data module can be evaluated as asked.

        Raises:
            InputError: If they cannot.
        """

    def check_labels(self, labels: Tensor | np.ndarray) -> None:
        """Checks that images with these labels can be evaluated as asked.

        Raises:
            InputError: If a label is no class of the network, or is needed but missing.
        """
        # A copy: PyTorch warns of arrays that cannot be written, such as those mapped into memory.
        labels = labels if isinstance(labels, Tensor) else torch.tensor(labels)
        n_classes = len(self.network.class_names)
        if labels.numel() and int(labels.max()) >= n_classes:
            raise InputError(f"There is a label {int(labels.max())}: the network has classes 0 to {n_classes - 1}.")
        if self.target == "label" and (labels < 0).any():
            raise InputError(
                "model.target is label, but some images have none: they lie in a flat folder, or in shards with "
                f"neither a .cls nor a folder. Label them, or {self.verb} the predicted class: model.target predicted."
            )

    def on_test_start(self) -> None:
        refuse_rounded_weights(self.network)
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        self.part_listeners = [callback for callback in callbacks if hasattr(callback, "on_part_end")]
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.check_data(data)
        if hasattr(data, "source"):
            self.check_labels(data.source.labels)

    def prepare_run(self, run: Path) -> None:
        """Prepares, on the first process, what the run needs beside its rows; a continued run calls it again.

        Raises:
            InputError: If the disk has no room for what is to be stored.
        """
        for option, n_bytes in self.bytes_kept().items():
            print(check_room(run, option, n_bytes, self.n_to_compute()))

    def test_step(self, batch: Batch, batch_idx: int) -> Outputs:
        """Evaluates a batch; a slow one in parts, all of which but the last are handed over at once."""
        batch = with_pixels(batch)  # a data module of somebody else's may give bytes
        start, rest = 0, batch
        while self.part_listeners and (n := self._images_per_part(len(rest["image"]))) < len(rest["image"]):
            part, rest = split_batch(rest, n)
            self.hand_over(self._evaluate_part(part, start), batch, n)
            start += n
        return self._evaluate_part(rest, start)

    def hand_over(self, outputs: Outputs, batch: Any, n_images: int) -> None:
        """Gives the outputs of some images of a batch to the callbacks; figures have the numbers of the whole batch."""
        for listener in self.part_listeners:
            listener.on_part_end(self.trainer, outputs, batch, n_images)

    def _images_per_part(self, n: int) -> int:
        """How many of ``n`` images take about a minute: a power of two, so that it seldom depends on the machine."""
        if self.seconds_per_image is None:
            return 1 if n * (1 + sum(self.passes().values())) >= PASSES_TO_TRY_ONE else n
        return 2 ** int(math.log2(max(1.0, SECONDS_BETWEEN_ROWS / self.seconds_per_image)))

    def _evaluate_part(self, batch: Batch, start: int) -> Outputs:
        """Evaluates a part of a batch, from its image ``start`` on; in halves if it does not fit in the memory."""
        n, began = len(batch["image"]), time.monotonic()
        self.n_in_hand = n
        with trusted():
            parts = results_of_parts(self.evaluate, batch) if n else []
        rows = with_failures_alone([row for _, part in parts for row in part["rows"]])
        failed = {row["path"] for row in rows if row.get("status") == "failed"}
        figures = {first + i: figure for first, part in parts for i, figure in part["figures"].items()}
        outputs: Outputs = {
            "rows": rows + failed_rows(batch),
            "figures": {start + i: figure for i, figure in figures.items() if batch["path"][i] not in failed},
        }
        if pictures := [part["pictures"] for _, part in parts if "pictures" in part]:
            outputs["pictures"] = {file: pixels for files in pictures for file, pixels in files.items()}
        if arrays := [part["arrays"] for _, part in parts if "arrays" in part]:
            outputs["arrays"] = {name: pa.concat_tables([tables[name] for tables in arrays]) for name in arrays[0]}
        if n:
            self.seconds_per_image = max(1e-6, time.monotonic() - began) / n
        return outputs

    def outputs(self, forward_pass: ForwardPass, batch: Batch, columns: Mapping[str, Tensor]) -> Outputs:
        """One row for each image of a pass, with its columns ``(N,)``, NaN = null; and figures of the first images.

        Images with logits that are NaN or infinite are ``failed``: without columns and figure.
        """
        stats, columns = on_host((logit_stats(forward_pass.logits, batch, forward_pass.probabilities), dict(columns)))
        self.check_labels(stats.label)
        images = image_columns(stats, batch, self.network.class_names)
        return {"rows": with_columns(images, columns), "figures": self.draw(forward_pass, batch, {}, images)}

    def draw(
        self, forward_pass: ForwardPass, batch: Batch, maps: Mapping[str, Tensor], images: Sequence[Row]
    ) -> dict[int, Figure | Drawing]:
        """Functions that draw the figure of each image that came with its original, by its number in the batch."""
        names, probabilities = self.network.class_names, forward_pass.probabilities
        return drawings_of_images(batch, images, names, probabilities, forward_pass.target, maps)

    def summarize(self, table: Rows) -> dict[str, Any]:
        """The summary of all rows of a run, as plain values, with at least ``n_images`` and ``n_failed``.

        Args:
            table: The rows; ``table[name]`` reads one column, ``table.to_pandas()`` all of them.
        """
        return summarize_columns(table, self.columns)

    def report(self, summary: dict[str, Any]) -> Report:
        """The report of a run, from its summary."""
        return report_images(summary)

    def details(self, run: Path) -> list[Table]:
        """Tables of single rows for the report, from the run's folder."""
        return []

    def facts(self, run: Path) -> dict[str, Any]:
        """What ``summary.json`` says of the run beside its rows, as plain values: what its helpers are."""
        return {name: helper.description() for name, helper in self.helpers.items()}

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """Figures of the whole run with their file names: here a histogram of each column."""
        if any(score["n"] for score in summary["scores"].values()):
            table = read_rows(run / "results", ["path", *self.columns])
            yield "scores", histograms_figure({name: table[name].drop_null().to_numpy() for name in self.columns})


def refuse_rounded_weights(network: nn.Module) -> None:
    """Checks that the weights, and so the pixels that meet them, are at least float32.

    Raises:
        InputError: If any is not: ``trainer.precision`` bf16-true and 16-true make all of them so.
    """
    for dtype in {parameter.dtype for parameter in network.parameters()} & {torch.bfloat16, torch.float16}:
        raise InputError(
            f"The network's weights are {dtype}, which rounds pixels, gradients, and budgets such as 1/255. Use "
            "trainer.precision bf16-mixed or 16-mixed, which keep weights and pixels in float32; a module that is in "
            "half precision by itself needs module.float()."
        )
