"""Attribution of a data set: every method's map and scores of every image, from one forward pass a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import pyarrow as pa
import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.figures.comparison import better, comparison_figure, curves_figure
from lightning_modules.figures.style import attribution_figure
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.halving import in_halves_if_need_be
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM, GuidedGradCAM
from lightning_modules.methods.explain import explain
from lightning_modules.methods.gradient import GuidedBackprop
from lightning_modules.methods.maps import shows_something
from lightning_modules.methods.smooth_grad import SmoothGrad
from lightning_modules.metrics import AttributionMetric, EnergyInBox, PointingGame, WeightRandomization
from lightning_modules.networks.class_names import find_class
from lightning_modules.networks.loading import load_network
from lightning_modules.results.attribution import report_attribution, summarize_attribution
from lightning_modules.results.report import Report
from lightning_modules.results.rows import IMAGE_FIELDS, failed_rows, image_columns


class AttributionModule(pl.LightningModule):
    """Runs attribution methods over images and scores their maps. One forward pass serves all methods.

    Args:
        weights: IMAGENET1K_V1 (torchvision's, downloaded once), shapes (the small embedded model), random (seeded,
            untrained), or the path of a .pth or .ckpt file.
        network: vgg16, or the import path of what makes another network from pixels in [0, 1] to logits, such as
            torchvision.models.resnet50 or my_file.MyNet; with arguments, {class_path: ..., init_args: {...}}. weights
            is then the name of torchvision's for it, random, own (its code loads them itself), or a state dict's path.
        methods: Attribution methods, by name or import path. null = GradCAM, GuidedBackprop, GuidedGradCAM and
            SmoothGrad.
        metrics: Scores of the maps, by name or import path. null = PointingGame and EnergyInBox, which need boxes.
        target: The class to explain: predicted, label (the folder's), or the name or index of a class.
        n_figures: Images of which a figure is drawn: the first of each class in turn.

    Example:
        >>> module = AttributionModule("shapes", methods=[GradCAM(), SmoothGrad(n_samples=50)], metrics=[EnergyInBox()])
        >>> list(module.methods), module.schema.names[-2:]
        (['GradCAM', 'SmoothGrad(n_samples=50)'], ['degenerate', 'energy_in_box'])
    """

    def __init__(
        self,
        weights: str = "IMAGENET1K_V1",
        methods: Sequence[AttributionMethod] | None = None,
        metrics: Sequence[AttributionMetric] | None = None,
        target: str | int = "predicted",
        n_figures: int = 16,
        network: str | dict[str, Any] = "vgg16",
    ) -> None:
        super().__init__()
        if n_figures < 0:
            raise InputError(f"model.n_figures must be at least 0, got {n_figures}.")
        methods = [GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad()] if methods is None else methods
        metrics = [PointingGame(), EnergyInBox()] if metrics is None else metrics
        self.methods = _by_name("model.methods", [(repr(method), method) for method in methods])
        # Not a ModuleDict: the rows are the truth, so the metrics' own states are not used here.
        self.metrics = list(metrics)
        self.columns = list(
            _by_name("model.metrics", [(f"the score {name}", name) for m in metrics for name in m.columns]).values()
        )
        self.curves = [name for metric in metrics for name in metric.curves]
        if not self.methods:
            raise InputError("model.methods is empty: name at least one attribution method.")
        self.network = load_network(network, weights)
        self.target = target if target in ("predicted", "label") else find_class(target, self.network.class_names)
        self.n_figures = n_figures
        self.metric_needs = reduce(or_, (metric.needs(self.network) for metric in metrics), Needs())
        for method in methods:
            method.needs(self.network)  # refuses unknown layers before the first batch

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows: those of the image, the target, the method, and its scores.

        ``degenerate`` says that the map is constant or not finite: it shows nothing.
        """
        fields = [*IMAGE_FIELDS, pa.field("target", pa.int64()), pa.field("method", pa.string())]
        fields += [pa.field("degenerate", pa.bool_())]
        fields += [pa.field(name, pa.float64()) for name in self.columns]
        return pa.schema(fields + [pa.field(name, pa.list_(pa.float32())) for name in self.curves])

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Computes a batch; returns its ``rows`` and ``figures``."""
        return in_halves_if_need_be(self._explain, batch)

    def _explain(self, batch: dict[str, Any]) -> dict[str, Any]:
        failed = failed_rows(batch)
        if not len(batch["image"]):
            return {"rows": failed, "figures": {}}
        maps = explain(
            self.network,
            batch["image"],
            list(self.methods.values()),
            self._targets(batch),
            keys=batch["path"],
            needs=self.metric_needs,
        )
        forward_pass = maps.forward_pass
        # All is computed before anything is read, so that a GPU is waited for once.
        scores = {name: self._score(maps[name], forward_pass, batch, method) for name, method in self.methods.items()}
        images = image_columns(forward_pass, batch, self.network.class_names)
        target = forward_pass.target.tolist()
        rows = []
        for name, columns in scores.items():
            values = {column: [_without_nan(value) for value in of.tolist()] for column, of in columns.items()}
            rows += [
                {**image, "target": target[i], "method": name, **{column: of[i] for column, of in values.items()}}
                for i, image in enumerate(images)
            ]
        return {"rows": rows + failed, "figures": self._draw(forward_pass, batch, maps, images)}

    def _score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Any, method: AttributionMethod
    ) -> dict[str, Tensor]:
        """What the rows say of a batch's maps: N values for each column, NaN where there is none."""
        columns = {"degenerate": ~shows_something(attribution.flatten(1))}
        for metric in self.metrics:
            columns |= metric.score(attribution, forward_pass, batch, method)
        return columns

    def _draw(
        self,
        forward_pass: ForwardPass,
        batch: Mapping[str, Any],
        maps: Mapping[str, Tensor],
        images: Sequence[Mapping[str, Any]],
    ) -> dict[int, Figure]:
        """A figure of each image that came with its original, by its number in the batch."""
        names = self.network.class_names
        best = forward_pass.probabilities.topk(min(5, len(names)))
        figures = {}
        for i, original in enumerate(batch["original"]):
            if original is None:
                continue
            image = images[i]
            predicted = f"predicted: {image['prediction_name']} ({image['probability']:.1%})"
            label = f"label: {image['label_name']}   " if image["label_name"] else ""
            figures[i] = attribution_figure(
                original.pixels,
                original.view,
                {name: attribution[i] for name, attribution in maps.items()},
                [(names[k], value) for k, value in zip(best.indices[i].tolist(), best.values[i].tolist())],
                title=image["path"],
                subtitle=f"{label}{predicted}   maps explain: {names[int(forward_pass.target[i])]}",
                boxes=batch["boxes"][i],
                is_target=batch["box_labels"][i].cpu() == int(forward_pass.target[i]),
            )
        return figures

    @staticmethod
    def summarize(table: pa.Table) -> dict[str, Any]:
        """Summary of a run's rows, see :func:`summarize_attribution`."""
        return summarize_attribution(table)

    @staticmethod
    def report(summary: dict[str, Any]) -> Report:
        """What the run has to say, from its summary."""
        return report_attribution(summary)

    def run_figures(self, summary: Mapping[str, Any]) -> dict[str, Figure]:
        """Figures of the whole run, from its summary: the methods' scores side by side, and their curves."""
        methods = summary["methods"]
        if not methods:
            return {}
        figures = {}
        if any(score["n"] for of_method in methods.values() for score in of_method["scores"].values()):
            figures["scores"] = comparison_figure(methods)
        layers = next((m.layers_of(self.network) for m in self.metrics if isinstance(m, WeightRandomization)), None)
        for name in self.curves:
            curves = {method: of["curves"][name] for method, of in methods.items() if of["curves"][name]}
            if not curves:
                continue
            score = name.removesuffix("_curve")
            title = f"{score.replace('_', ' ')} ({better(score)} is better)"
            if name.startswith("randomization") and layers:
                figures[name] = curves_figure(
                    curves, title, "randomized from the output down to", "likeness to the trained network's map", layers
                )
            else:
                figures[name] = curves_figure(curves, title, "share of the pixels", "probability of the target")
        return figures

    def _targets(self, batch: Mapping[str, Any]) -> Tensor | int | None:
        if self.target == "predicted":
            return None
        if self.target != "label":
            return int(self.target)
        if (batch["label"] < 0).any():
            raise InputError(
                "model.target is label, but some images have none: they lie in a flat folder, or in shards with "
                "neither a .cls nor a folder. Label them, or explain the predicted class: model.target predicted."
            )
        return batch["label"]


def _by_name(option: str, named: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(named)
    if len(table) < len(named):
        names = [name for name, _ in named]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{option} names {twice} twice.")
    return table


def _without_nan(value: Any) -> Any:
    """NaN, also in a list, as None: not scored."""
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if value != value else value
