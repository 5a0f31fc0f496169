"""What the evaluating LightningModules share: from batches to rows and figures, from the rows of a run to its report.

A module says what it computes of one batch. Nothing is skipped, and nothing that was computed is lost: images that
could not be read become failed rows, and a batch that does not fit in the device's memory is computed in parts.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.batch import Batch, boxes_of, with_pixels
from lightning_modules.errors import InputError
from lightning_modules.figures.attribution import attribution_figure
from lightning_modules.figures.comparison import histograms_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.gradients.fitting import results_of_parts, split_batch
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.results.kept.lists import check_room
from lightning_modules.results.report import SCORES, Report, image_scalars, tag
from lightning_modules.results.rows.images import (
    IMAGE_FIELDS,
    Row,
    Rows,
    failed_rows,
    image_columns,
    seen_in,
    with_columns,
    with_failures_alone,
)
from lightning_modules.results.rows.parts import read_rows
from lightning_modules.results.rows.reading import on_host
from lightning_modules.results.rows.stored import numbers_of
from lightning_modules.results.scores import mean_with_interval, summarize_score
from lightning_modules.results.summaries.images import summarize_images
from lightning_modules.results.tables import Table
from lightning_modules.run_module import Outputs, RunModule

LEGEND = (
    "Each figure shows one image, with the classes that the network finds most probable. The dashed frame is what the "
    "network sees."
)


SECONDS_BETWEEN_ROWS = 60.0
"""A batch that takes longer is computed in parts."""

PASSES_TO_TRY_ONE = 500
"""A first batch for which the network is shown so many images may take minutes: its first image shows how long."""


class EvaluationModule(RunModule):
    """Computes something of each image of a data set. A subclass says what, by :meth:`evaluate`.

    With :attr:`columns` and :meth:`outputs` that is all: the rows hold one row an image, the summary the mean of each
    column with its interval, the figures the first images and a histogram of each column. Whoever has several rows an
    image, or more to say of them, replaces the methods in question.

    Args:
        network: From pixels in [0, 1] to logits.
        n_figures: Images of which a figure is drawn: the first of each class in turn.

    Attributes:
        target: The class that is looked at: "predicted", "label" (the folder's), another word, or its index.
    """

    columns: tuple[str, ...] = ()
    """Names of the numbers that the rows hold beyond what every row says of its image."""

    verb = "explain"
    """What is done to the target, in messages."""

    def __init__(self, network: Network, n_figures: int = 16) -> None:
        super().__init__(network, n_figures)
        self.target: str | int = "predicted"
        self.seconds_per_image: float | None = None  # not known before there were some

    @abstractmethod
    def evaluate(self, batch: Batch) -> Outputs:
        """The rows and figures of a batch of at least one image. What it gives of an image depends on that image alone.

        The images are floating-point, in [0, 1]. The N of the batch may be a part of those that the test step got. Of
        an image of which a row is ``failed`` that row alone is kept, and no figure; :meth:`outputs` says so where the
        logits are no numbers.
        """

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([*IMAGE_FIELDS, *(pa.field(name, pa.float64()) for name in self.columns)])

    def on_test_start(self) -> None:
        super().on_test_start()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "source"):
            self.check_labels(data.source.labels)

    def bytes_kept(self) -> dict[str, int]:
        """What is kept of each image beside its rows, at the most, in bytes; by the option that asks for it."""
        return {}

    def prepare_run(self, run: Path) -> None:
        """Says how much is going to be kept.

        Raises:
            InputError: If the disk has not that much.
        """
        super().prepare_run(run)
        for option, of_image in self.bytes_kept().items():
            print(check_room(run, option, of_image, self.n_to_compute()))

    def n_to_compute(self) -> int | None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        world = self.trainer.world_size
        return sum(map(data.n_left, range(world), [world] * world)) if hasattr(data, "n_left") else None

    def test_step(self, batch: Batch, batch_idx: int) -> Outputs:
        """Computes a batch; in parts if it takes long, each of which is handed over, but for the last."""
        batch = with_pixels(batch)  # which it has, unless a data module of somebody else's gives bytes as they are
        start, rest = 0, batch
        while self.part_listeners and (n := self._images_per_part(len(rest["image"]))) < len(rest["image"]):
            part, rest = split_batch(rest, n)
            self.hand_over(self._outputs_of(part, start), batch, n)
            start += n
        return self._outputs_of(rest, start)

    def _images_per_part(self, n: int) -> int:
        """Of how many of ``n`` images the rows are to wait for each other: of what takes about a minute.

        A power of two, so that it seldom depends on what else the machine does.
        """
        if self.seconds_per_image is None:
            return 1 if n * (1 + sum(self.passes().values())) >= PASSES_TO_TRY_ONE else n
        return 2 ** int(math.log2(max(1.0, SECONDS_BETWEEN_ROWS / self.seconds_per_image)))

    def _outputs_of(self, batch: Batch, start: int) -> Outputs:
        """Computes a part of a batch, which begins at its image ``start``; in halves if its memory does not suffice."""
        began, self.n_in_hand = time.monotonic(), len(batch["image"])
        outputs: Outputs = {"rows": [], "figures": {}}
        if len(batch["image"]):
            with trusted():
                parts = results_of_parts(self.evaluate, batch)
            for first, part in parts:
                outputs["rows"] += part["rows"]
                outputs["figures"] |= {first + i: figure for i, figure in part["figures"].items()}
                if "pictures" in part:
                    outputs["pictures"] = outputs.get("pictures", {}) | part["pictures"]
            if kept := [part["kept"] for _, part in parts if "kept" in part]:
                outputs["kept"] = {folder: pa.concat_tables([of[folder] for of in kept]) for folder in kept[0]}
        outputs["rows"] = with_failures_alone(outputs["rows"])
        failed = {row["path"] for row in outputs["rows"] if row.get("status") == "failed"}
        figures = {i: figure for i, figure in outputs["figures"].items() if batch["path"][i] not in failed}
        outputs["figures"] = {start + i: figure for i, figure in figures.items()}
        outputs["rows"] += failed_rows(batch)
        if n := len(batch["image"]):
            self.seconds_per_image = max(1e-6, time.monotonic() - began) / n
        return outputs

    def outputs(self, forward_pass: ForwardPass, batch: Batch, columns: Mapping[str, Tensor]) -> Outputs:
        """One row for each image of a pass, with its columns ``(N,)``, NaN = null; and figures of the first images.

        An image of which the pass's logits are NaN or infinite is ``failed``: it has neither.
        """
        seen, columns = on_host((seen_in(forward_pass.logits, batch, forward_pass.probabilities), dict(columns)))
        self.check_labels(seen.label)
        images = image_columns(seen, batch, self.network.class_names)
        return {"rows": with_columns(images, columns), "figures": self.draw(forward_pass, batch, {}, images)}

    def draw(
        self, forward_pass: ForwardPass, batch: Batch, maps: Mapping[str, Tensor], images: Sequence[Row]
    ) -> dict[int, Figure | Drawing]:
        """What draws a figure of each image that came with its original, with its maps, by its number in the batch."""
        names = self.network.class_names
        shown = [i for i, row in enumerate(images) if batch["original"][i] is not None and row["status"] != "failed"]
        if not shown:
            return {}
        best = forward_pass.probabilities.topk(min(5, len(names)))
        of_maps = {i: {name: attribution[i] for name, attribution in maps.items()} for i in shown}
        boxes = batch["boxes"], batch["box_labels"], batch["n_boxes"]
        values, classes, target, of_maps, boxes = on_host(
            (best.values, best.indices, forward_pass.target, of_maps, boxes)
        )
        read: Batch = {**batch, "boxes": boxes[0], "box_labels": boxes[1], "n_boxes": boxes[2]}
        figures: dict[int, Figure | Drawing] = {}
        for i in shown:
            image, original = images[i], batch["original"][i]
            assert original is not None
            predicted = f"predicted: {image['prediction_name']} ({image['probability']:.1%})"
            label = f"label: {image['label_name']}   " if image["label_name"] else ""
            explained = f"   maps explain: {names[int(target[i])]}" if maps else ""
            of_image, box_labels = boxes_of(read, i)
            figures[i] = partial(
                attribution_figure,
                original.pixels,
                original.view,
                of_maps[i],
                [(names[k], value) for k, value in zip(classes[i].tolist(), values[i].tolist())],
                title=image["path"],
                subtitle=f"{label}{predicted}{explained}",
                boxes=of_image,
                is_target=box_labels == int(target[i]),
            )
        return figures

    def check_labels(self, labels: Tensor | np.ndarray) -> None:
        """Whether images with these labels can be evaluated as asked.

        Raises:
            InputError: If a label is no class of the network, or is needed but missing.
        """
        # A copy: labels that are mapped into memory cannot be written, of which PyTorch warns.
        labels = labels if isinstance(labels, Tensor) else torch.tensor(labels)
        n_classes = len(self.network.class_names)
        if labels.numel() and int(labels.max()) >= n_classes:
            raise InputError(f"There is a label {int(labels.max())}: the network has classes 0 to {n_classes - 1}.")
        if self.target == "label" and (labels < 0).any():
            raise InputError(
                "model.target is label, but some images have none: they lie in a flat folder, or in shards with "
                f"neither a .cls nor a folder. Label them, or {self.verb} the predicted class: model.target predicted."
            )

    def summarize(self, table: Rows) -> dict[str, Any]:
        """Counts of images, accuracy, and of each column its mean, interval, mean over classes and count."""
        label = numbers_of(table["label"])
        scores = {name: summarize_score(numbers_of(table[name]), label) for name in self.columns}
        return {**summarize_images(table), "scores": scores}

    def report(self, summary: dict[str, Any]) -> Report:
        scores = summary["scores"]
        scalars = image_scalars(summary) | {tag(SCORES, name): score["mean"] for name, score in scores.items()}
        rows = [[name, mean_with_interval(score), f"{score['n']:,}"] for name, score in scores.items() if score["n"]]
        table = Table(["mean and 95 % interval", "of all images", "n"], rows)
        return Report(scalars, summary, [table], legend=LEGEND)

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """A histogram of each column."""
        if not any(score["n"] for score in summary["scores"].values()):
            return
        table = read_rows(run / "results", ["path", *self.columns])
        yield "scores", histograms_figure({name: table[name].drop_null().to_numpy() for name in self.columns})
