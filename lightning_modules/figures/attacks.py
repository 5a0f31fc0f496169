"""Figures of attacked images: what the network predicts for them, and for the images on the way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_modules.attacks.base import Attack
from lightning_modules.attacks.budgets import format_eps
from lightning_modules.figures.robustness import Panel, robustness_figure
from lightning_modules.figures.saving import Drawing
from lightning_modules.host import on_host
from lightning_modules.networks.network import Network

STEPS_ALONG = 25
"""Points on the way from an image to the adversarial one, beside those of the sweep."""


@dataclass(frozen=True)
class AttackFigures:
    """Draws images of a batch before and after an attack.

    Attributes:
        network: What was attacked.
        attack: How.
        eps: The budgets, from the smallest.
        images: The clean images and then, for each budget, the attacked ones: ``(N, 3, H, W)`` each.
        logits: Of each of these, ``(N, C)``.
        maps: Of each of these, method -> ``(N, 1 or 3, H, W)``.
        rows: Of each of these in turn, its N rows.
        shown_eps: Path -> the budget to show it under. Of other images see :meth:`draw`.
    """

    network: Network
    attack: Attack
    eps: Sequence[float]
    images: Sequence[Tensor]
    logits: Sequence[Tensor]
    maps: Sequence[Mapping[str, Tensor]]
    rows: Sequence[Mapping[str, Any]]
    shown_eps: Mapping[str, float] = field(default_factory=dict)

    def draw(self, i: int) -> Figure | Drawing:
        """What draws the figure of image ``i``, unless asked otherwise at the smallest budget that fools it, else at
        the largest."""
        before = self.rows[i]
        shown = self.shown_eps.get(before["path"]) or before["smallest_eps"]
        k = 1 + self.eps.index(shown) if shown else len(self.eps)
        after, eps = self.rows[k * len(self.images[0]) + i], self.eps[k - 1]
        target = f"{'towards' if self.attack.targeted else 'away from'} {self.network.class_names[before['target']]}"
        outcome = outcome_of(before, after)
        label = f"label: {before['label_name']}   " if before["label_name"] else ""
        note = "   the gradient vanished" if before["vanished"] else ""
        path = torch.stack([images[i] for images in self.images])
        maps = {name: (clean[i], self.maps[k][name][i]) for name, clean in self.maps[0].items()}
        leading = [self.logits[j][i] for j in (0, k, -1)]
        clean, adversarial, maps, leading, (steps, along) = on_host(
            (path[0], path[k], maps, leading, self._along(path))
        )
        return partial(
            robustness_figure,
            Panel(clean, before["prediction_name"], before["probability"]),
            Panel(adversarial, after["prediction_name"], after["probability"]),
            (steps.tolist(), self._of_leading(along, leading)),
            maps,
            {name: (after[f"{name}.rank_correlation"], after[f"{name}.top_overlap"]) for name in maps},
            eps=eps,
            sweep=self.eps,
            title=before["path"],
            subtitle=f"{label}{self.attack!r} {target}, eps {format_eps(eps)}: {outcome}{note}",
        )

    def _along(self, path: Tensor) -> tuple[Tensor, Tensor]:
        """Budgets ``(S,)`` and the probabilities of all classes there, ``(S, C)``, on the way that the attack takes.

        It goes straight from each image of ``path``, ``(1 + k, 3, H, W)``, to the next.
        """
        knots = torch.tensor([0.0, *self.eps])
        steps = torch.cat([torch.linspace(0, self.eps[-1], STEPS_ALONG), knots]).unique()
        k = (torch.searchsorted(knots, steps, right=True) - 1).clamp_max(len(self.eps) - 1)
        share = ((steps - knots[k]) / (knots[k + 1] - knots[k]))[:, None, None, None]
        k, share = k.to(path.device), share.to(path.device)
        with torch.no_grad():
            return steps, self.network(path[k] + share * (path[k + 1] - path[k])).float().softmax(1)

    def _of_leading(self, probabilities: Tensor, leading: Sequence[Tensor]) -> dict[str, list[float]]:
        """Those of the class predicted first, and of the strongest other one of each of the logits ``leading``."""
        first = int(leading[0].argmax())
        others = [next(k for k in logits.topk(2).indices.tolist() if k != first) for logits in leading[1:]]
        names = self.network.class_names
        # Two classes may have one name.
        shown = {k: names[k] if names.count(names[k]) == 1 else f"{names[k]} ({k})" for k in (first, *others)}
        return {name: probabilities[:, k].tolist() for k, name in shown.items()}


def outcome_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What became of an image, from its rows: only one that was classified rightly, or is unlabelled, can be fooled.

    Example:
        >>> clean = {"top1": False, "prediction": 1}
        >>> outcome_of(clean, {"success": None, "prediction": 2}), outcome_of(clean, {"success": None, "prediction": 1})
        ('wrong before, prediction changed', 'wrong before, prediction unchanged')
    """
    change = "prediction changed" if after["prediction"] != before["prediction"] else "prediction unchanged"
    if before["top1"] is False:
        return f"wrong before, {change}"
    if after["success"] is None:
        return "nothing to attack"
    if before["top1"] is None:
        return change
    return "fooled" if after["success"] else "not fooled"
