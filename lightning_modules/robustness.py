"""Robustness of a data set: how small a perturbation fools the network, and how far it moves the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_modules.attacks.base import Attack, check_budget
from lightning_modules.attacks.budgets import format_eps, parse_sweep
from lightning_modules.attacks.fgsm import FGSM
from lightning_modules.errors import InputError
from lightning_modules.figures.robustness import Panel, accuracy_figure, robustness_figure
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.halving import in_halves_if_need_be
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM
from lightning_modules.methods.explain import Explanation, explain
from lightning_modules.metrics import rank_correlation, top_overlap
from lightning_modules.networks.class_names import find_class
from lightning_modules.networks.loading import load_network
from lightning_modules.results.report import Report
from lightning_modules.results.robustness import RANK_CORRELATION, TOP_OVERLAP, report_robustness, summarize_robustness
from lightning_modules.results.rows import IMAGE_FIELDS, failed_rows, image_columns

ATTACK_FIELDS = [
    pa.field("target", pa.int64()),
    pa.field("eps", pa.float64()),
    pa.field("success", pa.bool_()),
    pa.field("smallest_eps", pa.float64()),
    pa.field("probability_label", pa.float64()),
    pa.field("linf", pa.float64()),
    pa.field("l2", pa.float64()),
    pa.field("saturated", pa.bool_()),
    pa.field("vanished", pa.bool_()),
]
"""What a row says beyond its image. ``success`` is null where there was nothing to attack: the prediction of the clean
image was wrong already or, if the attack is targeted, right already. ``smallest_eps`` is that of the sweep that
succeeds, null if none does. ``linf`` and ``l2`` are measured."""

STEPS_ALONG = 25
"""Points on the way from an image to the adversarial one, in the figures, beside those of the sweep."""


class _Evaluated(NamedTuple):
    """What is kept of a forward pass: its graph is large, and a sweep has many."""

    columns: list[dict[str, Any]]
    logits: Tensor
    maps: dict[str, Tensor]


class RobustnessModule(pl.LightningModule):
    """Attacks images under a sweep of budgets, and explains each before and after.

    For k budgets FGSM costs one forward and one backward pass, which the clean image's prediction and explanations
    share, and k forwards.

    Args:
        weights: IMAGENET1K_V1 (torchvision's, downloaded once), shapes (the small embedded model), random (seeded,
            untrained), or the path of a .pth or .ckpt file.
        network: vgg16, or the import path of what makes another network from pixels in [0, 1] to logits, such as
            torchvision.models.resnet50 or my_file.MyNet; with arguments, {class_path: ..., init_args: {...}}. weights
            is then the name of torchvision's for it, random, own (its code loads them itself), or a state dict's path.
        eps: Budgets, a list such as '[1/255, 0.1]', in pixel units: numbers in [0, 1], or fractions of them. Those of
            norm 2 and 1 may exceed 1.
        attack: The attack, by name (FGSM, PGD) or import path. null = FGSM.
        target: The class to lead away from: label (the folder's) or predicted; or, if the attack is targeted, to lead
            to: least_likely, or the name or index of a class. null = label, or least_likely if targeted.
        methods: Attribution methods of which the maps before and after are compared, by name or import path. Both
            explain the class that the clean image was given. null = GradCAM; [] = none.
        n_figures: Images of which a figure is drawn: the first of each class in turn.

    Example:
        >>> module = RobustnessModule("shapes", eps=["1/255", 0.1], attack=FGSM(norm="inf"))
        >>> module.eps, module.schema.names[-2:]
        ([0.00392156862745098, 0.1], ['GradCAM.rank_correlation', 'GradCAM.top_overlap'])
    """

    def __init__(
        self,
        weights: str = "IMAGENET1K_V1",
        eps: Sequence[str | float] = ("1/255", "2/255", "4/255", "8/255"),
        attack: Attack | None = None,
        target: str | int | None = None,
        methods: Sequence[AttributionMethod] | None = None,
        n_figures: int = 16,
        network: str | dict[str, Any] = "vgg16",
    ) -> None:
        super().__init__()
        if n_figures < 0:
            raise InputError(f"model.n_figures must be at least 0, got {n_figures}.")
        self.attack = FGSM() if attack is None else attack
        self.eps = parse_sweep(eps, self.attack.norm)
        methods = [GradCAM()] if methods is None else methods
        self.methods = {repr(method): method for method in methods}
        if len(self.methods) < len(methods):
            raise InputError(f"model.methods names a method twice: {', '.join(map(repr, methods))}.")
        self.network = load_network(network, weights)
        self.target = _parse_target(target, self.attack, self.network.class_names)
        self.n_figures = n_figures
        for method in methods:
            method.needs(self.network)  # refuses unknown layers before the first batch

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows: of the image, of the attack, and two for each method."""
        scores = [name + suffix for name in self.methods for suffix in (RANK_CORRELATION, TOP_OVERLAP)]
        return pa.schema([*IMAGE_FIELDS, *ATTACK_FIELDS, *(pa.field(name, pa.float64()) for name in scores)])

    def check_labels(self, labels: Any) -> None:
        """Whether a data set with these labels can be attacked as asked; a script calls it before the first batch.

        Raises:
            InputError: If a label is no class of the network, or is needed but missing.
        """
        labels = labels if isinstance(labels, Tensor) else torch.tensor(labels)
        n_classes = len(self.network.class_names)
        if labels.numel() and int(labels.max()) >= n_classes:
            raise InputError(f"There is a label {int(labels.max())}: the network has classes 0 to {n_classes - 1}.")
        if self.target == "label" and (labels < 0).any():
            raise InputError(
                "model.target is label, but some images have none: they lie in a flat folder, or in shards with "
                "neither a .cls nor a folder. Label them, or attack the predicted class: model.target predicted."
            )

    def on_test_start(self) -> None:
        dtype = next(self.network.parameters()).dtype
        if dtype in (torch.bfloat16, torch.float16):
            raise InputError(
                f"trainer.precision makes the network's weights and the pixels {dtype}, which rounds budgets such as "
                "1/255 away. Use bf16-mixed or 16-mixed: they keep both in float32."
            )

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Attacks a batch; returns its ``rows`` and ``figures``."""
        return in_halves_if_need_be(self._evaluate_batch, batch)

    def _evaluate_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        failed = failed_rows(batch)
        if not len(batch["image"]):
            return {"rows": failed, "figures": {}}
        images = batch["image"]
        self.check_labels(batch["label"])
        clean, explained, target, (adversarial, vanished) = self._attack(batch)
        evaluated = [clean]
        distances = [(torch.zeros(len(images)), torch.zeros(len(images)))]
        for eps, attacked in zip(self.eps, adversarial):
            distances.append(check_budget(self.attack, images, attacked, eps))
            evaluated.append(self._evaluate(self._explain(batch, attacked, explained), batch))

        success, is_attackable = self._success(torch.stack([e.logits.argmax(1) for e in evaluated]), target)
        smallest = self._smallest_eps(success)
        # In float32 the probability of the attacked class is 1: its part of the loss's gradient is rounded away.
        saturated = (clean.logits.softmax(1).gather(1, target[:, None])[:, 0] == 1).tolist()
        rows: list[dict[str, Any]] = []
        for k, (eps, after, (linf, l2)) in enumerate(zip([0.0, *self.eps], evaluated, distances)):
            columns = {
                "target": target.tolist(),
                "eps": [eps] * len(images),
                "success": [bool(s) if a else None for s, a in zip(success[k], is_attackable)],
                "smallest_eps": smallest,
                "probability_label": _label_probability(after.logits, batch["label"]),
                "linf": linf.tolist(),
                "l2": l2.tolist(),
                "saturated": saturated,
                "vanished": vanished.tolist(),
                **(_similarities(clean.maps, after.maps) if k else {}),
            }
            rows += [
                {**image, **{name: values[i] for name, values in columns.items()}}
                for i, image in enumerate(after.columns)
            ]
        figures = {
            i: self._draw(i, images, adversarial, evaluated, rows)
            for i, original in enumerate(batch["original"])
            if original is not None
        }
        return {"rows": rows + failed, "figures": figures}

    def _explain(
        self, batch: Mapping[str, Any], images: Tensor, target: Tensor | None = None, needs: Needs | None = None
    ) -> Explanation:
        return explain(self.network, images, list(self.methods.values()), target, keys=batch["path"], needs=needs)

    def _attack(self, batch: Mapping[str, Any]) -> tuple[_Evaluated, Tensor, Tensor, tuple[list[Tensor], Tensor]]:
        """The clean images' evaluation, the classes that maps explain, the classes attacked, and the sweep."""
        maps = self._explain(batch, batch["image"], needs=self.attack.needs(self.network))
        target = self._targets(maps.forward_pass, batch["label"])
        sweep = self.attack.sweep(maps.forward_pass, target, self.eps)
        return self._evaluate(maps, batch), maps.forward_pass.target, target, sweep

    def _evaluate(self, maps: Explanation, batch: Mapping[str, Any]) -> _Evaluated:
        columns = image_columns(maps.forward_pass, batch, self.network.class_names)
        return _Evaluated(columns, maps.forward_pass.logits, dict(maps))

    def _targets(self, forward_pass: ForwardPass, labels: Tensor) -> Tensor:
        if self.target == "label":
            return labels
        if self.target == "predicted":
            return forward_pass.prediction
        if self.target == "least_likely":
            return forward_pass.logits.argmin(1)
        return torch.full_like(forward_pass.prediction, int(self.target))

    def _success(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each image is fooled at each budget, the clean one first, ``(1 + k, N)``, and could be, ``(N,)``."""
        success = (predictions == target) == self.attack.targeted
        return success, ~success[0]

    def _smallest_eps(self, success: Tensor) -> list[float | None]:
        """For each image the smallest budget that fools it; None if none does, or there was nothing to attack."""
        return [
            next((eps for eps, fooled in zip(self.eps, column[1:]) if fooled), None) if not column[0] else None
            for column in success.T.tolist()
        ]

    def _draw(
        self,
        i: int,
        images: Tensor,
        adversarial: Sequence[Tensor],
        evaluated: Sequence[_Evaluated],
        rows: Sequence[Mapping[str, Any]],
    ) -> Figure:
        """The figure of image ``i``, at the smallest budget that fools it, else at the largest."""
        n = len(images)
        before = rows[i]
        k = self.eps.index(before["smallest_eps"]) if before["smallest_eps"] else len(self.eps) - 1
        after = rows[(k + 1) * n + i]
        names = self.network.class_names
        target = f"{'towards' if self.attack.targeted else 'away from'} {names[before['target']]}"
        outcome = {None: "nothing to attack", True: "fooled", False: "not fooled"}[after["success"]]
        label = f"label: {before['label_name']}   " if before["label_name"] else ""
        note = "   the gradient vanished" if before["vanished"] else ""
        return robustness_figure(
            Panel(images[i], before["prediction_name"], before["probability"]),
            Panel(adversarial[k][i], after["prediction_name"], after["probability"]),
            self._along(
                torch.stack([images[i], *(attacked[i] for attacked in adversarial)]),
                [evaluated[j].logits[i] for j in (0, k + 1, -1)],
            ),
            {name: (clean[i], evaluated[k + 1].maps[name][i]) for name, clean in evaluated[0].maps.items()},
            {name: (after[name + RANK_CORRELATION], after[name + TOP_OVERLAP]) for name in self.methods},
            eps=after["eps"],
            sweep=self.eps,
            title=before["path"],
            subtitle=f"{label}{self.attack!r} {target}, eps {format_eps(after['eps'])}: {outcome}{note}",
        )

    def _along(self, path: Tensor, leading: Sequence[Tensor]) -> tuple[list[float], dict[str, list[float]]]:
        """Budgets, and the probabilities of the leading classes there on the way that the attack takes.

        These are the class predicted first, and the strongest other one of each of the logits ``leading``. The way goes
        straight from each image of ``path``, ``(1 + k, 3, H, W)``, to the next.
        """
        first = int(leading[0].argmax())
        others = [next(k for k in logits.topk(2).indices.tolist() if k != first) for logits in leading[1:]]
        knots = torch.tensor([0.0, *self.eps], device=path.device)
        steps = torch.cat([torch.linspace(0, self.eps[-1], STEPS_ALONG, device=path.device), knots]).unique()
        k = (torch.searchsorted(knots, steps, right=True) - 1).clamp_max(len(self.eps) - 1)
        share = ((steps - knots[k]) / (knots[k + 1] - knots[k]))[:, None, None, None]
        with torch.no_grad():
            probabilities = self.network(path[k] + share * (path[k + 1] - path[k])).float().softmax(1)
        names = self.network.class_names
        return steps.tolist(), {names[k]: probabilities[:, k].tolist() for k in dict.fromkeys([first, *others])}

    @staticmethod
    def summarize(table: pa.Table) -> dict[str, Any]:
        """Summary of a run's rows: see :func:`summarize_robustness`."""
        return summarize_robustness(table)

    @staticmethod
    def report(summary: dict[str, Any]) -> Report:
        """What the run has to say, from its summary."""
        return report_robustness(summary)

    def run_figures(self, summary: Mapping[str, Any]) -> dict[str, Figure]:
        """Figures of a whole run, by file name, drawn from its summary."""
        title = f"{self.attack!r}, target: {self._target_name()}"
        return {"accuracy_over_eps": accuracy_figure(summary, title)}

    def _target_name(self) -> str:
        return self.network.class_names[self.target] if isinstance(self.target, int) else self.target


def _parse_target(target: str | int | None, attack: Attack, class_names: Sequence[str]) -> str | int:
    if target is None:
        return "least_likely" if attack.targeted else "label"
    if target in ("label", "predicted"):
        if attack.targeted:
            raise InputError(
                f"model.target is {target}, but the attack is targeted: name the class to lead to, or least_likely."
            )
        return target
    if target != "least_likely":
        target = find_class(target, class_names)
    if not attack.targeted:
        raise InputError(
            f"model.target is {target}, a class to lead to, but the attack leads away from a class: label or "
            "predicted. For the former, set model.attack.targeted to true."
        )
    return target


def _label_probability(logits: Tensor, labels: Tensor) -> list[float | None]:
    probabilities = logits.double().softmax(1).gather(1, labels.clamp_min(0)[:, None])[:, 0].tolist()
    return [value if label >= 0 else None for value, label in zip(probabilities, labels.tolist())]


def _similarities(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, list[float | None]]:
    """The columns of each method; None where a map ranks nothing."""
    columns = {}
    for name, attribution in before.items():
        for suffix, score in ((RANK_CORRELATION, rank_correlation), (TOP_OVERLAP, top_overlap)):
            values = score(attribution, after[name]).tolist()
            columns[name + suffix] = [None if value != value else value for value in values]
    return columns
