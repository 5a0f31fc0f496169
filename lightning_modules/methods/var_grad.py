"""VarGrad: how much the gradient varies over noisy copies of an image."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.noisy_copies import NoisyCopies


class VarGrad(NoisyCopies):
    r"""VarGrad, ``(N, 3, H, W)``, at least 0: the variance of the gradient over noisy copies of the image.

    .. math:: V(x) = \frac{1}{n} \sum_{i=1}^{n} \big(\nabla y(x + \epsilon_i) - M(x)\big)^2, \quad
        \epsilon_i \sim \mathcal{N}(0, \sigma^2)

    where ``M`` is SmoothGrad's mean over the same copies: of the same seed and image they have the same noise. It costs
    ``n_samples`` forward and backward passes.

    Reference: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018; its appendix.
    """

    meaning = "How much the effect of each pixel varies over noisy copies of the image."

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return torch.cat([_squares(batches) for batches in self.samples(forward_pass)]) / self.n_samples


def _squares(batches: Iterable[Tensor]) -> Tensor:
    """The sum of the squares of what maps ``(K, ...)`` are from the mean of all.

    Chan's way to join those of two samples: a mean of squares less a squared mean would round to anything where the
    gradient hardly varies.
    """
    n, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for maps in batches:
        k = len(maps)
        change = maps.mean(0) - mean
        squares = squares + (maps - maps.mean(0)).square().sum(0) + change.square() * (n * k / (n + k))
        mean = mean + change * (k / (n + k))
        n += k
    return squares
