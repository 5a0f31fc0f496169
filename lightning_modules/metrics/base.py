"""What a score of attribution maps is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod

Batch = Mapping[str, Any]


class AttributionMetric(Metric, ABC):
    """Scores each map of a batch; a subclass says how, under one or several columns.

    ``score`` gives the values that stand in the rows; ``update`` and ``compute`` take their means, exactly, over
    batches and devices, without the images that were not scored.

    To add one, derive a class in a file of your own, name its columns, and name the class on the command line by its
    import path; the README.md of this folder shows one.
    """

    columns: tuple[str, ...]
    """Names of the scores: columns of numbers in the rows."""

    curves: tuple[str, ...] = ()
    """Names of what has several numbers for each map: columns of lists in the rows."""

    needs_input_gradient: bool = False
    """Whether the metric asks the pass for a gradient with respect to the pixels."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        n = len(self.columns)
        self.add_state("total", torch.zeros(n, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(n, dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        """The scores of each map: ``(N,)`` for each column, NaN where one cannot be scored; ``(N, K)`` for each curve.

        Args:
            attribution: Maps ``(N, C, H, W)``.
            forward_pass: The pass that they explain.
            batch: The batch, with its ``boxes`` (N of ``(K, 4)``) and ``box_labels`` (N of ``(K,)``).
            method: The method that made the maps.
        """

    def update(self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod) -> None:
        scores = self.score(attribution, forward_pass, batch, method)
        values = torch.stack([scores[name].double() for name in self.columns]).to(self.total.device)
        self.total += values.nansum(1)
        self.count += values.isfinite().sum(1)

    def compute(self) -> dict[str, Tensor]:
        """Mean of each column over the maps scored so far; NaN if there are none."""
        return dict(zip(self.columns, self.total / self.count))
