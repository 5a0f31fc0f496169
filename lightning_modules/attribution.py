"""Attribution of a data set: every method's map and scores of every image, from one forward pass a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import torch
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.batch import Batch
from datamodules.text import Text
from lightning_modules.errors import InputError, check_objects
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.figures.comparison import comparison_figure, curves_figure, ranking_figure
from lightning_modules.gradients.fitting import select_images
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.host import on_host
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM, GuidedGradCAM
from lightning_modules.methods.explain import Explanation, explain, joined_needs
from lightning_modules.methods.gradient import GuidedBackprop
from lightning_modules.methods.maps import shows_something
from lightning_modules.methods.smooth_grad import SmoothGrad
from lightning_modules.methods.uninformed import UninformedMethod
from lightning_modules.metrics import (
    AttributionMetric,
    AverageDrop,
    EnergyInBox,
    PointingGame,
    Sparseness,
    without_degenerate,
)
from lightning_modules.networks.class_names import find_target
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.results.maps import FOLDER, OPTION, bytes_of_maps, scaled_to_half, table_of_maps
from lightning_modules.results.report import Report
from lightning_modules.results.rows import IMAGE_FIELDS, image_columns, logit_stats, with_columns
from lightning_modules.results.storage import Row, Rows
from lightning_modules.results.summaries.attribution import LABEL, report_attribution, summarize_attribution


class AttributionModule(EvaluationModule):
    """Runs attribution methods over images and scores their maps. One forward pass serves all methods.

    Args:
        weights: What :func:`load_network` takes.
        network: What :func:`load_network` takes.
        methods: Attribution methods, by name or import path. null = GradCAM, GuidedBackprop, GuidedGradCAM and
            SmoothGrad.
        metrics: Scores of the maps, by name or import path. null = PointingGame and EnergyInBox where there are boxes,
            AverageDrop and Sparseness where there are none; all four where that is not known before images are read.
        target: The class to explain: predicted, label (the folder's), or the name or index of a class. both = the
            predicted one and, of images that are misclassified, the label's too, which costs these images once more:
            their maps of it are scored, in columns of their own; figures and saved maps are of the predicted class.
        n_figures: Images of which a figure is drawn: the first of each class in turn.
        save_maps: Whether the maps are kept, in float16; class activation maps at the size of their layer.
        compile: Whether torch.compile makes code of the network when the first batch runs, for a GPU: on a CPU it is
            slower. Passes of which layers or the guided gradient are read (CAMs, GuidedBackprop) run as they are.
    """

    def __init__(
        self,
        weights: str = "IMAGENET1K_V1",
        methods: Sequence[AttributionMethod] | None = None,
        metrics: Sequence[AttributionMetric] | None = None,
        target: Text | int = "both",
        n_figures: int = 16,
        network: str | dict = "vgg16",
        save_maps: bool = False,
        compile: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> None:
        methods = [GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad()] if methods is None else methods
        check_objects(AttributionMethod, "method", methods)
        check_objects(AttributionMetric, "metric", metrics or ())
        _refuse_twins("model.methods", [repr(method) for method in methods])
        if not methods:
            raise InputError("model.methods is empty: name at least one attribution method.")
        super().__init__(load_network(network, weights, compile=compile, **options), n_figures)
        self.methods = {repr(method): method for method in methods}
        self.has_default_metrics = metrics is None
        self.has_boxes: bool | None = None  # not known before there are images
        self._set_metrics(_default_metrics(None) if metrics is None else metrics)
        self.target = find_target(target, self.network.class_names, ("both", "predicted", "label"))
        self.save_maps = save_maps
        joined_needs(self.network, methods)  # refuses what does not fit the network now, not at the first batch

    def _set_metrics(self, metrics: Sequence[AttributionMetric]) -> None:
        self.metrics = list(metrics)
        self.needs_of_metrics = joined_needs(self.network, metrics)
        methods = self.methods.values()
        method_columns = dict.fromkeys(name for method in methods for name in method.columns)
        self.columns = (*method_columns, *(name for metric in metrics for name in metric.columns))
        self.curves = [name for metric in metrics for name in metric.curves]
        _refuse_twins("model.metrics", [f"the score {name}" for name in (*self.columns, *self.curves)])
        neutral = {name for metric in metrics for name in metric.neutral}
        self.better = {}
        self.unranked: list[str] = []  # by which methods would be, if it were known which are better
        scored: list[AttributionMethod | AttributionMetric] = [*methods, *metrics]
        for each in scored:
            names = [name for name in (*each.columns, *getattr(each, "curves", ())) if name not in neutral]
            if each.lower_is_better is None:
                self.unranked += names
            else:
                self.better |= {name: "lower" if name in each.lower_is_better else "higher" for name in names}

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows: those of the image, the target, the method, and its scores.

        ``degenerate`` marks maps that are constant or not finite. The columns of a method are null in the rows of the
        others. ``label.`` before a score: of the map of the label's class.
        """
        fields = [*IMAGE_FIELDS, pa.field("target", pa.int64()), pa.field("method", pa.string())]
        fields += [pa.field("degenerate", pa.bool_())]
        fields += [pa.field(name, pa.float64()) for name in self.columns]
        fields += [pa.field(name, pa.list_(pa.float32())) for name in self.curves]
        of_labels = self.columns if self.target == "both" else ()
        return pa.schema(fields + [pa.field(LABEL + name, pa.float64()) for name in of_labels])

    def passes(self) -> dict[str, int]:
        methods = list(self.methods.values())
        passes = {name: method.n_passes(self.network) for name, method in self.methods.items()}
        return passes | {repr(metric): metric.n_passes(self.network, methods) for metric in self.metrics}

    def check_data(self, data: Any) -> None:
        super().check_data(data)
        # Also where nothing is left to compute, and so no test starts.
        self.has_boxes = getattr(data, "has_boxes", None)
        if self.has_default_metrics:
            self._set_metrics(_default_metrics(self.has_boxes))

    def evaluate(self, batch: Batch) -> Outputs:
        """A row for each image and method."""
        # All is computed before anything is read, so that a GPU is waited for once.
        maps, scores = self._explained(batch, self._targets(batch))
        forward_pass = maps.forward_pass
        kept = {name: scaled_to_half(grid) for name, grid in maps.grids.items()} if self.save_maps else {}
        boxes = batch["boxes"], batch["box_labels"], batch["n_boxes"]
        stats = logit_stats(forward_pass.logits, batch, forward_pass.probabilities)
        stats, explained, scores, kept, boxes = on_host((stats, forward_pass.target, scores, kept, boxes))
        self.check_labels(stats.label)
        images = image_columns(stats, batch, self.network.class_names)
        if self.target == "both":
            self._add_scores_of_labels(scores, batch, images, boxes[2].tolist())
        rows = []
        for name, columns in scores.items():
            rows += with_columns(images, {"target": explained, "method": [name] * len(images), **columns})
        outputs: Outputs = {"rows": rows, "figures": self.draw(forward_pass, batch, maps, images)}
        if self.save_maps:
            good = [i for i, row in enumerate(images) if row["status"] == "ok"]
            height, width = batch["image"].shape[2:]
            outputs["arrays"] = {FOLDER: table_of_maps(good, batch["path"], explained, boxes, kept, (height, width))}
        return outputs

    def bytes_kept(self) -> dict[str, int]:
        """Of maps, by those of a grey image: what size they have is known when there are some."""
        if not self.save_maps:
            return {}
        grey = torch.full((1, 3, self.network.input_size, self.network.input_size), 0.5, device=self.device)
        return {OPTION: bytes_of_maps(explain(self.network, grey, list(self.methods.values())).grids)}

    def _explained(self, batch: Batch, target: Tensor | int | None) -> tuple[Explanation, dict[str, dict[str, Tensor]]]:
        """The maps of a batch, and by their methods what the rows say of them."""
        methods, needs = list(self.methods.values()), self.needs_of_metrics
        maps = explain(self.network, batch["image"], methods, target, keys=batch["path"], needs=needs)
        scored = [(name, self._score(maps[name], maps.forward_pass, batch, of)) for name, of in self.methods.items()]
        return maps, dict(scored)

    def _add_scores_of_labels(
        self, scores: dict[str, dict[str, Tensor]], batch: Batch, images: Sequence[Row], n_boxes: Sequence[int]
    ) -> None:
        """Adds the scores of the maps of the labels' classes: of misclassified images in a pass of these alone.

        Of an image that was classified rightly they are those that are there already, of an unlabelled one NaN.
        """
        is_right = torch.tensor([image.get("top1") is True for image in images])
        wrong = [i for i, image in enumerate(images) if image.get("top1") is False]
        of_wrong: dict[str, dict[str, Tensor]] = {}
        if wrong:
            misclassified = select_images(batch, wrong, n_boxes)
            of_wrong = on_host(self._explained(misclassified, misclassified["label"])[1])
        for method, columns in scores.items():
            for name in [name for name in self.columns if name in columns]:
                columns[LABEL + name] = columns[name].where(is_right, torch.nan)
                if wrong:
                    columns[LABEL + name][wrong] = of_wrong[method][name]

    def _score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        """The columns of a batch's maps, ``(N,)`` each, NaN where there is no number."""
        columns = {"degenerate": ~shows_something(attribution.flatten(1))}
        columns |= method.extra_columns(attribution, forward_pass)
        for metric in self.metrics:
            columns |= without_degenerate(metric.score(attribution, forward_pass, batch, method), attribution)
        return columns

    def _targets(self, batch: Batch) -> Tensor | int | None:
        if self.target in ("both", "predicted"):
            return None
        if self.target != "label":
            return int(self.target)
        # Labels that are no class are refused when they are read, with the rows.
        return batch["label"].clamp(0, len(self.network.class_names) - 1)

    def summarize(self, table: Rows) -> dict[str, Any]:
        uninformed = [name for name, method in self.methods.items() if isinstance(method, UninformedMethod)]
        return {**summarize_attribution(table, self.better, uninformed), "unranked": self.unranked}

    def report(self, summary: dict[str, Any]) -> Report:
        notes = []
        if self.has_default_metrics and self.has_boxes is False:
            named, with_boxes = (" and ".join(map(repr, each)) for each in (self.metrics, _default_metrics(True)))
            notes.append(f"There are no boxes, so the scores are {named}. With --data.boxes they are {with_boxes}.")
        if self.unranked and len(self.methods) > 1:
            notes.append(
                f"Methods are not ranked by {', '.join(self.unranked)}: whether more or less of it is better is not "
                "known. A metric's lower_is_better says it."
            )
        notes += [note for metric in self.metrics for note in metric.notes(self.methods)]
        return report_attribution(summary, self.has_boxes, target=self.target, further_notes=notes)

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """The methods' scores side by side, and their curves."""
        methods = summary["methods"]
        if any(score["n"] for numbers in methods.values() for score in numbers["scores"].values()):
            yield "scores", comparison_figure(methods, self.better)
        if summary["ranking"]:
            yield "ranking", ranking_figure(summary["ranking"], list(methods))
        for metric in self.metrics:
            for name in metric.curves:
                curves = {method: numbers["curves"][name] for method, numbers in methods.items()}
                curves = {method: curve for method, curve in curves.items() if curve}
                title = name.removesuffix("_curve").replace("_", " ")
                if name in self.better:
                    title += f" ({self.better[name]} is better)"
                if curves:
                    yield name, curves_figure(curves, title, *metric.curve_axes(name, self.network))


def _default_metrics(has_boxes: bool | None) -> list[AttributionMetric]:
    with_boxes, without = [PointingGame(), EnergyInBox()], [AverageDrop(), Sparseness()]
    return [*(with_boxes if has_boxes is not False else ()), *(without if not has_boxes else ())]


def _refuse_twins(option: str, names: Sequence[str]) -> None:
    if twins := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{option} names {twins[0]} twice.")
