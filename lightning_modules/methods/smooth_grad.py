"""SmoothGrad: the mean gradient over noisy copies of an image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.noisy_copies import NoisyCopies


class SmoothGrad(NoisyCopies):
    r"""SmoothGrad, ``(N, 3, H, W)``: the mean gradient over noisy copies of the image.

    .. math:: M(x) = \frac{1}{n} \sum_{i=1}^{n} \nabla y(x + \mathcal{N}(0, \sigma^2)), \quad
        \sigma = \text{noise_level} \cdot (\max x - \min x)

    The noise of an image follows from the seed and the image's key alone, so its map is the same in any batch. The
    target is that of the clean image. It costs ``n_samples`` forward and backward passes.

    Args:
        n_samples: Noisy copies of each image, at least 1.
        noise_level: Standard deviation of the noise as a fraction of the image's own range, at least 0.
        clip: Whether the noisy pixels are clipped to [0, 1]. The paper does not clip.
        statistic: What is averaged over the copies: the signed gradients (the paper), their magnitudes, or their
            squares (as in Hooker et al., "A Benchmark for Interpretability Methods", NeurIPS 2019).
        max_batch: Most noisy images in one pass, which bounds the memory. null = as many as the batch has, at least 32.
        seed: Seed of the noise.
        method: Whose maps are averaged in place of gradients, such as GuidedBackprop. null = Saliency, the gradient.

    Raises:
        InputError: If ``n_samples``, ``noise_level`` or ``max_batch`` is out of its range.

    Reference: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """

    meaning = "How much each pixel changes the score, averaged over noisy copies of the image."

    def __init__(
        self,
        n_samples: int = 25,
        noise_level: float = 0.15,
        clip: bool = False,
        statistic: Literal["signed", "magnitude", "squared"] = "signed",
        max_batch: int | None = None,
        seed: int = 0,
        method: AttributionMethod | None = None,
    ) -> None:
        super().__init__(n_samples, noise_level, clip, max_batch, seed, method)
        self.statistic = statistic

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        averaged = {"signed": Tensor.detach, "magnitude": Tensor.abs, "squared": Tensor.square}[self.statistic]
        parts = [sum(averaged(maps).sum(0) for maps in batches) for batches in self.samples(forward_pass)]
        return torch.cat(parts) / self.n_samples  # type: ignore[arg-type]
