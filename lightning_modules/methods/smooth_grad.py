"""SmoothGrad: the mean gradient over noisy copies of an image."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.networks.network import Network
from lightning_modules.options import seed_from


class SmoothGrad(AttributionMethod):
    r"""SmoothGrad, ``(N, 3, H, W)``: the mean gradient over noisy copies of the image.

    .. math:: M(x) = \frac{1}{n} \sum_{i=1}^{n} \nabla y(x + \mathcal{N}(0, \sigma^2)), \quad
        \sigma = \text{noise_level} \cdot (\max x - \min x)

    The noise of an image follows from the seed and the image's key alone, so its map is the same in any batch. The
    target is that of the clean image.

    Args:
        n_samples: Noisy copies of each image, at least 1.
        noise_level: Standard deviation of the noise as a fraction of the image's own range, at least 0.
        clip: Whether the noisy pixels are clipped to [0, 1]. The paper does not clip.
        statistic: What is averaged over the copies: the signed gradients (the paper), their magnitudes, or their
            squares (as in Hooker et al., "A Benchmark for Interpretability Methods", NeurIPS 2019).
        max_batch: Most noisy images in one pass, which bounds the memory. null = as many as the batch has, at least 32.
        seed: Seed of the noise.

    Raises:
        InputError: If ``n_samples``, ``noise_level`` or ``max_batch`` is out of its range.

    Reference: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.
    """

    def __init__(
        self,
        n_samples: int = 25,
        noise_level: float = 0.15,
        clip: bool = False,
        statistic: Literal["signed", "magnitude", "squared"] = "signed",
        max_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        if n_samples < 1:
            raise InputError(f"n_samples must be at least 1, got {n_samples}.")
        if max_batch is not None and max_batch < 1:
            raise InputError(f"max_batch must be at least 1, got {max_batch}.")
        if not noise_level >= 0:
            raise InputError(f"noise_level must be at least 0, got {noise_level}.")
        self.n_samples = n_samples
        self.noise_level = noise_level
        self.clip = clip
        self.statistic = statistic
        self.max_batch = max_batch
        self.seed = seed

    def needs(self, network: Network) -> Needs:
        return Needs()  # it makes passes of its own, at the noisy images

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        generators = [
            torch.Generator(images.device).manual_seed(seed_from(self.seed, key)) for key in forward_pass.keys
        ]
        most = self.max_batch or max(32, len(images))
        total = torch.zeros_like(images)
        for first in range(0, len(images), most):
            part = slice(first, first + most)
            total[part] = self._sum(forward_pass, images[part], forward_pass.target[part], generators[part], most)
        return total / self.n_samples

    def _sum(
        self,
        forward_pass: ForwardPass,
        images: Tensor,
        target: Tensor,
        generators: list[torch.Generator],
        most: int,
    ) -> Tensor:
        """The sum over the copies, for so few images that at least one copy of all fits in a pass of ``most``."""
        sigma = self.noise_level * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        total = torch.zeros_like(images)
        copies = most // len(images)
        for start in range(0, self.n_samples, copies):
            k = min(copies, self.n_samples - start)
            # Drawn copy by copy, so that the noise does not depend on how many share a pass.
            noisy = torch.cat([images + sigma * self._noise(images, generators) for _ in range(k)])
            noisy = noisy.clamp(0, 1) if self.clip else noisy
            gradient = forward_pass.at(noisy, target.repeat(k), Needs(input_gradient=True)).input_gradient()
            if self.statistic == "magnitude":
                gradient = gradient.abs()
            elif self.statistic == "squared":
                gradient = gradient.square()
            total += gradient.unflatten(0, (k, len(images))).sum(0)
        return total

    @staticmethod
    def _noise(images: Tensor, generators: list[torch.Generator]) -> Tensor:
        # In float32 whatever the images are: in float64 other numbers are drawn.
        options: dict[str, Any] = {"device": images.device, "dtype": torch.float32}
        noise = [torch.randn(images.shape[1:], generator=generator, **options) for generator in generators]
        return torch.stack(noise).to(images.dtype)
