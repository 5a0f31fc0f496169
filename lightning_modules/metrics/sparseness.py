"""Does the map mark little, so that a person can grasp it? The Gini index."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.scaling import scaled_near_one
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.metrics.base import AttributionMetric, without_degenerate


def gini_index(values: Tensor) -> Tensor:
    r"""How unequal the values of each row are, from 0 (all the same) to :math:`1 - 1/d` (one has all): ``(N,)``.

    .. math:: G(v) = \frac{\sum_{k=1}^{d} (2k - d - 1) \, v_{(k)}}{d \sum_{k=1}^{d} v_{(k)}}

    where :math:`v_{(1)} \le \dots \le v_{(d)}`. NaN where all are 0.

    Args:
        values: At least 0, ``(N, d)``.

    Reference: Hurley & Rickard, "Comparing Measures of Sparsity", IEEE Transactions on Information Theory 2009.

    Example:
        >>> gini_index(torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 5]]))
        tensor([0.0000, 0.7500])
    """
    d = values.shape[1]
    ranks = torch.arange(1 - d, d, 2, device=values.device, dtype=values.dtype)
    ordered = values.sort(1).values
    return (ordered * ranks).sum(1) / (d * ordered.sum(1))


class Sparseness(AttributionMetric):
    """The Gini index of the absolute map: 0 = all pixels count the same, near 1 = very few pixels hold it all.

    The channels' magnitudes of a pixel are added. It says nothing of whether the right pixels are marked. It costs no
    pass.

    Reference: Chalasani et al., "Concise Explanations of Neural Networks using Adversarial Training", ICML 2020.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "sparseness": "How few pixels a map marks: 0 where all count the same, near 1 where few hold it all. It does "
        "not say whether they are the right ones. Higher is better.",
    }
    columns = ("sparseness",)
    lower_is_better = ()

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        at_least_float32 = torch.promote_types(attribution.dtype, torch.float32)
        strength = scaled_near_one(attribution.to(at_least_float32)).abs().sum(1).flatten(1)
        return without_degenerate({"sparseness": gini_index(strength)}, attribution)
