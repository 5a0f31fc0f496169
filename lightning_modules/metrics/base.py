"""What a score of attribution maps is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.forward_pass import ForwardPass

Batch = Mapping[str, Any]


class AttributionMetric(Metric, ABC):
    """The mean over images of a score of their maps; a subclass says what the score of each image is.

    ``score`` gives the values that stand in the rows; ``update`` and ``compute`` take their mean, exactly, over
    batches and devices, without the images that were not scored.
    """

    name: str
    """The column in the rows."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def score(self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch) -> Tensor:
        """The score of each map, ``(N,)``; NaN where an image cannot be scored.

        Args:
            attribution: Maps ``(N, C, H, W)``.
            forward_pass: The pass that they explain.
            batch: The batch, with its boxes.
        """

    def update(self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch) -> None:
        scores = self.score(attribution, forward_pass, batch).double()
        self.total += scores.nansum()
        self.count += scores.isfinite().sum()

    def compute(self) -> Tensor:
        """Mean score of the images scored so far; NaN if there are none."""
        return self.total / self.count
