"""Robustness of a data set: how small a perturbation fools the network, and how far it moves the explanation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import torch
from matplotlib.figure import Figure
from torch import Tensor

from datamodules.batch import Batch, pixels_of
from datamodules.text import Text
from lightning_modules.attacks.base import (
    Attack,
    Distances,
    check_attackable,
    distances_of,
    left_bounds,
    without_rounding,
)
from lightning_modules.attacks.budgets import parse_sweep
from lightning_modules.attacks.fgsm import FGSM
from lightning_modules.attacks.noise import random_steps
from lightning_modules.attacks.targets import classes_of, parse_target
from lightning_modules.errors import InputError, check_object, check_objects
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.figures.attacks import AttackFigures
from lightning_modules.figures.nearest import nearest_figure
from lightning_modules.figures.robustness import accuracy_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.host import on_host, replaced, where_float64_is
from lightning_modules.judging import VICTIM, load_judges, show_to, warn_of_judges
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import GradCAM
from lightning_modules.methods.explain import Explanation, explain, joined_needs
from lightning_modules.methods.uninformed import OtherImage
from lightning_modules.metrics.base import AttributionMetric, without_degenerate
from lightning_modules.metrics.similarity import Ranking
from lightning_modules.networks.inputs import are_pixels, check_range
from lightning_modules.networks.loading import load_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.results.adversarial import (
    FOLDER,
    OPTION,
    bytes_of_image,
    in_bytes,
    pictures_of,
    table_of_pixels,
)
from lightning_modules.results.attacked_rows import (
    ATTACK_FIELDS,
    EMPTY,
    LIKENESS,
    OF_ANOTHER,
    ROUNDED_FIELDS,
    UNDER_NOISE,
    AtBudget,
    attacked_rows,
    likeness_columns,
    likeness_fields,
)
from lightning_modules.results.report import Report
from lightning_modules.results.rows import IMAGE_FIELDS, logit_stats
from lightning_modules.results.storage import Row, Rows
from lightning_modules.results.summaries.nearest import DISTANCE_FIELD, with_nearest, with_table_of_nearest
from lightning_modules.results.summaries.robustness import summarize_robustness
from lightning_modules.results.summaries.robustness_report import report_robustness, score_column, with_scores
from lightning_modules.results.summaries.transfer import transfer_rates, with_transfer


class RobustnessModule(EvaluationModule):
    """Attacks images under a sweep of budgets, and explains each before and after.

    For k budgets FGSM costs one forward and one backward pass, which the clean image's prediction and explanations
    share, and k forwards. What the maps are compared with costs as many again, and one for each method.

    Args:
        weights: What :func:`load_network` takes.
        network: What :func:`load_network` takes.
        eps: Budgets, a list such as '[1/255, 0.1]', in pixel units: numbers in [0, 1], or fractions of them. Those of
            norm 2 and 1 may exceed 1.
        attack: The attack, by name (FGSM, PGD, APGD, DeepFool) or import path. null = FGSM.
        target: The class to lead away from: label (the folder's) or predicted; or, if the attack is targeted, to lead
            to: least_likely, or the name or index of a class. null = label, or least_likely if targeted.
        methods: Attribution methods of which the maps before and after are compared, by name or import path. Both
            explain the class that the clean image was given. Beside them stand the maps under random noise of the same
            budgets, and those of another picture: the same image on its side. null = GradCAM; [] = none.
        n_figures: Images of which a figure is drawn: the first of each class in turn.
        victims: Other networks that are shown the attacked images, in 8 bits: does the attack transfer? Each is what
            model.network takes, or {network: ..., weights: ..., class_names: ..., name: ...}. They are asked for a
            class by its name.
        rounded: Whether the network is asked once more what the attacked images are when they are rounded to 8 bits, as
            in a file; a forward pass more for each budget.
        save_adversarial: Whether the attacked images are kept, as pictures and exactly; rounded is then true.
        metrics: Scores of the maps of the clean and of the attacked images, by name or import path, as
            evaluate_attribution.py takes them.
        compile: Whether torch.compile makes code of the network when the first batch runs, for a GPU: on a CPU it is
            slower. Passes of which layers or the guided gradient are read (CAMs, GuidedBackprop) run as they are.
    """

    verb = "attack"

    def __init__(
        self,
        weights: str = "IMAGENET1K_V1",
        eps: Sequence[str | float] = ("1/255", "2/255", "4/255", "8/255"),
        attack: Attack | None = None,
        target: Text | int | None = None,
        methods: Sequence[AttributionMethod] | None = None,
        n_figures: int = 16,
        network: str | dict = "vgg16",
        victims: Sequence[str | dict] = (),  # not dict[str, Any]: a parser reads numbers in what may be anything
        rounded: bool = False,
        save_adversarial: bool = False,
        metrics: Sequence[AttributionMetric] = (),
        compile: bool = False,
        **options: Unpack[NetworkOptions],
    ) -> None:
        attack = FGSM() if attack is None else attack
        check_object(Attack, "attack", attack)
        sweep = parse_sweep(eps, attack.norm)
        methods = [GradCAM()] if methods is None else methods
        check_objects(AttributionMethod, "method", methods)
        check_objects(AttributionMetric, "metric", metrics)
        if len({repr(method) for method in methods}) < len(methods):
            raise InputError(f"model.methods names a method twice: {', '.join(map(repr, methods))}.")
        super().__init__(load_network(network, weights, compile=compile, **options), n_figures)
        check_attackable(self.network)
        self.attack = attack
        self.eps = sweep
        self.methods = {repr(method): method for method in methods}
        self.target = parse_target(target, attack, self.network.class_names)
        joined_needs(self.network, methods)  # refuses unknown layers before the first batch
        self.metrics = list(metrics)
        self.needs_of_metrics = joined_needs(self.network, metrics)
        self.scores = [name for metric in metrics for name in metric.columns]
        if len(set(self.scores)) < len(self.scores):
            raise InputError(f"model.metrics names a score twice: {', '.join(self.scores)}.")
        self.rounded = rounded or save_adversarial
        self.save_adversarial = save_adversarial
        self.shown_eps: dict[str, float] = {}
        self.better = {f"{name}.{likeness}": "higher" for name in self.methods for likeness in LIKENESS}
        self.victims = load_judges(victims, self.network, VICTIM)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the rows: of the image, of the attack, of what else it fools, and seven for each method."""
        fields = [*IMAGE_FIELDS, *ATTACK_FIELDS, *(ROUNDED_FIELDS if self.rounded else ())]
        fields += [DISTANCE_FIELD] if self.attack.finds_distance else []
        fields += [field for victim in self.victims for field in victim.fields]
        for name in self.methods:
            fields += likeness_fields(name)
            fields += [pa.field(score_column(name, score), pa.float64()) for score in self.scores]
        return pa.schema(fields)

    @property
    def helpers(self) -> dict[str, Network]:
        return {f"victim.{victim.name}": victim.network for victim in self.victims}

    def on_test_start(self) -> None:
        super().on_test_start()
        targets = self._possible_targets()
        for victim in self.victims:
            victim.check(targets)
            # They are no parts of this module: its state dict, and its precision, are those of the network.
            victim.network.to(self.device)
        if self.trainer.is_global_zero:
            warn_of_judges(self.victims)

    def _possible_targets(self) -> list[int]:
        """The classes that may be attacked, as far as it is known before images are read."""
        source = getattr(self.trainer.datamodule, "source", None)  # type: ignore[attr-defined]
        if isinstance(self.target, int):
            return [self.target]
        if self.target == "label" and source is not None:
            return np.unique(source.labels).tolist()
        return list(range(len(self.network.class_names)))

    def passes(self) -> dict[str, int]:
        n, methods = len(self.eps), list(self.methods.values())
        # Each method also explains the images under random noise, and the clean one on its side.
        of_methods = {name: 1 + (2 + 2 * n) * method.n_passes(self.network) for name, method in self.methods.items()}
        of_metrics = {repr(metric): (1 + n) * metric.n_passes(self.network, methods) for metric in self.metrics}
        n_moved = n * (1 + self.rounded + bool(methods))
        of_attack = self.attack.n_passes() * (1 if self.attack.finds_distance else n)
        return {"moved images": n_moved, repr(self.attack): of_attack, **of_methods, **of_metrics}

    def bytes_kept(self) -> dict[str, int]:
        n_pixels = 3 * self.network.input_size**2
        return {OPTION: bytes_of_image(n_pixels, len(self.eps))} if self.save_adversarial else {}

    def evaluate(self, batch: Batch) -> Outputs:
        """A row for each image and budget, 0 = clean.

        An image fails as a whole where its logits, or the attacked pixels, under any budget are NaN or infinite.
        Whether it is fooled there, and so the smallest budget that fools it, is not known; and accuracy is compared
        between budgets over the same images.
        """
        # As passes and attacks have them, so that all are gone through in one order of the memory.
        images = without_rounding(batch["image"].contiguous(memory_format=torch.channels_last))
        batch = {**batch, "image": images}
        # The attack differentiates the clean images' pass; those of the adversarial ones are only explained.
        clean = self._explain(batch, images, needs=self.attack.needs(self.network) | self.needs_of_metrics)
        explained, logits, maps, seen = clean.forward_pass.target, [clean.forward_pass.logits], [dict(clean)], [images]
        target = classes_of(self.target, logits[0], self._as_classes(batch["label"]))
        adversarial, vanished, distance = self.attack.sweep(clean.forward_pass, target, self.eps)
        # In float32 the probability of the attacked class is 1: its part of the loss's gradient is rounded away.
        saturated = logits[0].softmax(1).gather(1, target[:, None])[:, 0] == 1
        nowhere = torch.zeros(len(images), device=images.device)
        measured = [self._measured(clean, batch, target, Distances(nowhere, nowhere, are_pixels(images)))]
        rankings = {name: Ranking(attribution) for name, attribution in clean.items()}
        others = {name: OtherImage(method)(clean.forward_pass) for name, method in self.methods.items()}
        measured[0].columns.update(likeness_columns(rankings, others, OF_ANOTHER))
        measured[0].columns.update({name + EMPTY: ~ranking.usable for name, ranking in rankings.items()})
        for attacked, distances in zip(adversarial, distances_of(self.attack, images, adversarial, self.eps)):
            seen.append(replaced(attacked, distances.is_lost, images))
            after = self._explain(batch, seen[-1], explained, self.needs_of_metrics)
            measured.append(self._measured(after, batch, target, distances))
            measured[-1].columns.update(likeness_columns(rankings, after, with_empty=True))
            if self.rounded:
                self._add_rounded(measured[-1], images, seen[-1], target)
            logits.append(after.forward_pass.logits)
            maps.append(dict(after))
            del after  # its graph is large, and a sweep has many
        if self.methods:
            noisy_images = random_steps(images, self.eps, self.attack.norm, batch["path"])
            for noisy, at_budget in zip(noisy_images, measured[1:]):
                noisy_maps = self._explain(batch, noisy, explained)
                at_budget.columns.update(likeness_columns(rankings, noisy_maps, UNDER_NOISE))
        # All is computed before anything is read, so that a GPU is waited for once.
        same = {"target": target, "saturated": saturated, "vanished": vanished}
        same |= {} if distance is None else {DISTANCE_FIELD.name: distance}
        pictures = [in_bytes(each) for each in seen] if self.save_adversarial or self.victims else []
        pixels = seen if self.save_adversarial else []
        same, measured, pictures, pixels = on_host((same, measured, pictures, pixels))
        self.check_labels(measured[0].stats.label)
        self._check_bounds(images, adversarial, measured)
        rows = self._rows(batch, same, measured, pictures)
        failed = {row["path"] for row in rows if row["status"] == "failed"}
        drawn = AttackFigures(
            self.network, self.attack, self.eps, [images, *adversarial], logits, maps, rows, self.shown_eps
        )
        originals, paths = batch["original"], batch["path"]
        shown = [i for i, path in enumerate(paths) if originals[i] is not None and path not in failed]
        outputs: Outputs = {"rows": rows, "figures": self.draw_attacked(drawn, shown)}
        if self.save_adversarial:
            outputs["pictures"] = pictures_of(paths, self.eps, pictures[1:], failed)
            outputs["arrays"] = {FOLDER: table_of_pixels(paths, self.eps, pixels, failed)}
        return outputs

    def _rows(
        self, batch: Batch, same: dict[str, Tensor], measured: Sequence[AtBudget], pictures: Sequence[Tensor]
    ) -> list[Row]:
        """The rows of a batch under all budgets, with what the victims make of the pictures."""
        targeted, columns = self.attack.targeted, [at_budget.columns for at_budget in measured]
        errors = show_to(self.victims, pictures, same["target"].tolist(), targeted, columns)
        rows = attacked_rows(batch, self.network.class_names, self.eps, targeted, same, measured)
        for row, error in zip(rows, errors):
            if error is not None and row["status"] != "failed":
                row |= {"status": "failed", "error": error}
        return rows

    def draw_attacked(self, drawn: AttackFigures, shown: Sequence[int]) -> dict[int, Figure | Drawing]:
        """What draws the figures of some images of a batch, by their numbers in it."""
        return {i: drawn.draw(i) for i in shown}

    def _add_rounded(self, at_budget: AtBudget, images: Tensor, attacked: Tensor, target: Tensor) -> None:
        """What the network says of the attacked images in 8 bits, and how far they are from the clean ones then."""
        rounded = pixels_of(in_bytes(attacked)).to(images.dtype)
        logits = ForwardPass(self.network, rounded).logits
        is_target = (logits.argmax(1) == target).float()
        at_budget.also["success_rounded"] = is_target.where(logits.isfinite().all(1), torch.nan)
        change = where_float64_is(rounded).double() - where_float64_is(images)
        at_budget.columns["linf_rounded"] = change.abs().amax((1, 2, 3))

    def _measured(self, maps: Explanation, batch: Batch, target: Tensor, distances: Distances) -> AtBudget:
        """What rows say of the images of a pass, under one budget; not read yet."""
        of_pass, label = maps.forward_pass.logits, where_float64_is(batch["label"])
        probabilities = where_float64_is(of_pass).double().softmax(1).gather(1, self._as_classes(label)[:, None])[:, 0]
        columns = {"probability_label": probabilities.where(label >= 0, torch.nan)}
        columns |= {"linf": distances.linf, "l2": distances.l2}
        for name, method in self.methods.items():
            for metric in self.metrics:
                found = without_degenerate(metric.score(maps[name], maps.forward_pass, batch, method), maps[name])
                columns |= {score_column(name, score): found[score] for score in metric.columns}
        is_lost, is_target = distances.is_lost, of_pass.argmax(1) == target
        return AtBudget(logit_stats(of_pass, batch), is_lost, is_target, distances.is_within | is_lost, columns, {})

    def _check_bounds(self, images: Tensor, adversarial: Sequence[Tensor], measured: Sequence[AtBudget]) -> None:
        """Asks that the images, and what the attack made of them, lie where they should; the former first.

        Raises:
            InputError: If one does not.
        """
        if not measured[0].is_within.all():
            check_range(images)
        for eps, attacked, at_budget in zip(self.eps, adversarial, measured[1:]):
            if not at_budget.is_within.all():
                raise left_bounds(self.attack, images, replaced(attacked, at_budget.is_lost, images), eps)

    def _as_classes(self, labels: Tensor) -> Tensor:
        """The labels, another in place of each that is no class; of which is told when they are read."""
        return labels.clamp(0, len(self.network.class_names) - 1)

    def _explain(
        self, batch: Batch, images: Tensor, target: Tensor | None = None, needs: Needs | None = None
    ) -> Explanation:
        methods, keys = list(self.methods.values()), batch["path"]
        return explain(self.network, images, methods, target, keys=keys, needs=needs)

    def summarize(self, table: Rows) -> dict[str, Any]:
        summary = with_transfer(summarize_robustness(table, self.eps), table)
        summary = with_nearest(summary, table, self.attack.norm)
        return with_scores(summary, table, list(self.methods), self.scores)

    def report(self, summary: dict[str, Any]) -> Report:
        report = report_robustness(summary, self._remedy(), type(self.attack).__name__, self.attack.caveat)
        return with_table_of_nearest(report, summary)

    def _remedy(self) -> str:
        """What would show how robust images are of which the network is too sure; empty where none is needed."""
        # Towards another class the gradient is there, however sure the network is; and some attacks use none.
        if self.attack.targeted or getattr(self.attack, "unsaturate", None) is not False:
            return ""
        if self.network.outputs == "probabilities":  # which the module itself has rounded
            remedy = "a network that gives logits, without its softmax or sigmoid"
        else:
            remedy = "--model.attack.unsaturate true"
        return f"They look more robust than they are. The remedy: {remedy}"

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        """Accuracy over the budgets, and how far the explanations moved."""
        target = self.network.class_names[self.target] if isinstance(self.target, int) else self.target
        title = f"{self.attack!r}, target: {target}"
        yield "accuracy_over_eps", accuracy_figure(summary, title, [transfer_rates(at) for at in summary["sweep"]])
        if "nearest" in summary:
            yield "accuracy_over_distance", nearest_figure(summary["nearest"], title)
