"""Figures of attacked images: what the network says of them, and of what lies on the way there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_modules.attacks.base import Attack
from lightning_modules.attacks.budgets import format_eps
from lightning_modules.figures.robustness import Panel, robustness_figure
from lightning_modules.networks.network import Network
from lightning_modules.results.summaries.robustness import RANK_CORRELATION, TOP_OVERLAP

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
    """

    network: Network
    attack: Attack
    eps: Sequence[float]
    images: Sequence[Tensor]
    logits: Sequence[Tensor]
    maps: Sequence[Mapping[str, Tensor]]
    rows: Sequence[Mapping[str, Any]]

    def draw(self, i: int) -> Figure:
        """The figure of image ``i``, at the smallest budget that fools it, else at the largest."""
        before = self.rows[i]
        k = 1 + self.eps.index(before["smallest_eps"]) if before["smallest_eps"] else len(self.eps)
        after, eps = self.rows[k * len(self.images[0]) + i], self.eps[k - 1]
        target = f"{'towards' if self.attack.targeted else 'away from'} {self.network.class_names[before['target']]}"
        outcome = {None: "nothing to attack", True: "fooled", False: "not fooled"}[after["success"]]
        label = f"label: {before['label_name']}   " if before["label_name"] else ""
        note = "   the gradient vanished" if before["vanished"] else ""
        return robustness_figure(
            Panel(self.images[0][i], before["prediction_name"], before["probability"]),
            Panel(self.images[k][i], after["prediction_name"], after["probability"]),
            self._along(torch.stack([images[i] for images in self.images]), [self.logits[j][i] for j in (0, k, -1)]),
            {name: (clean[i], self.maps[k][name][i]) for name, clean in self.maps[0].items()},
            {name: (after[name + RANK_CORRELATION], after[name + TOP_OVERLAP]) for name in self.maps[0]},
            eps=eps,
            sweep=self.eps,
            title=before["path"],
            subtitle=f"{label}{self.attack!r} {target}, eps {format_eps(eps)}: {outcome}{note}",
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
