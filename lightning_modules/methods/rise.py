"""RISE: which pixels were shown when the network knew the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.variants import at_variants, random_numbers, shared_batches
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers


class RISE(AttributionMethod):
    r"""RISE, ``(N, 1, H, W)``, at least 0: the mean of random masks, weighted by the probability of what they show.

    .. math:: L = \frac{1}{n \, p_1} \sum_{i=1}^{n} p(x \odot M_i) \, M_i

    where ``p`` is the probability of the target. A mask ``M`` is a coarse grid of ones, with probability ``p_1``, and
    zeros, enlarged bilinearly to one cell more than the image has and cut out at random. What it hides has the mean
    that the network subtracts. The masks of an image follow from the seed and the image's key alone, where the authors'
    program has the same masks for all images. It costs ``n_masks`` forward passes. A map is nowhere near 0: at each
    pixel it is the mean probability of the images that show it. Scores that read values, not their order, see that.

    Args:
        n_masks: Masks of each image, at least 1; the paper has 4,000 for VGG16 and 8,000 for ResNet50.
        grid: Cells of a mask in each direction, at least 1.
        p1: Probability that a cell is shown, above 0 and at most 1.
        max_batch: Most masked images in one pass. null = as many as the batch has, at least 32.
        seed: Seed of the masks.

    Raises:
        InputError: If an option is out of its range.

    Reference: Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """

    meaning = "How probable the class is, on average, when the pixel is shown and random others are hidden."

    sign = "positive"

    def __init__(
        self, n_masks: int = 4000, grid: int = 7, p1: float = 0.5, max_batch: int | None = None, seed: int = 0
    ) -> None:
        check_at_least_one(n_masks=n_masks, grid=grid, max_batch=max_batch)
        if not 0 < p1 <= 1:
            raise InputError(f"p1 must be above 0 and at most 1, got {p1}.")
        self.n_masks = n_masks
        self.grid = grid
        self.p1 = p1
        self.max_batch = max_batch
        self.seed = seed

    def needs(self, network: Network) -> Needs:
        return Needs()  # it makes passes of its own, of masked images

    def n_passes(self, network: Network) -> int:
        return self.n_masks

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images, mean = forward_pass.images.detach(), forward_pass.network.mean_pixel
        if not len(images):
            return images[:, :1]
        cells, shifts = self._draw(random_numbers(forward_pass, self.seed))
        total = torch.zeros_like(images[:, 0])
        for part, masks in shared_batches(len(images), self.n_masks, self.max_batch):
            shown = self._masks(cells[part, masks], shifts[part, masks], images).transpose(0, 1)
            masked = mean + shown[:, :, None] * (images[part] - mean)
            probability = at_variants(forward_pass, masked, part).target_probability.unflatten(0, masked.shape[:2])
            total[part] += torch.einsum("kn,knhw->nhw", probability.to(shown.dtype), shown)
        return total[:, None] / (self.n_masks * self.p1)

    def _draw(self, numbers: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Which cells of each mask are shown, ``(N, n, g, g)``; its shift, ``(N, n, 2)``, in cells, below 1."""
        drawn = numbers.uniform(slice(0, self.n_masks), (self.grid**2 + 2,)).transpose(0, 1)
        cells, shifts = drawn.split([self.grid**2, 2], 2)
        return cells.unflatten(2, (self.grid, self.grid)) < self.p1, shifts

    def _masks(self, cells: Tensor, shifts: Tensor, images: Tensor) -> Tensor:
        """Masks ``(n, k, H, W)`` in [0, 1] of grids ``(n, k, g, g)`` and their shifts ``(n, k, 2)``."""
        enlarged = []
        for axis, side in enumerate(images.shape[2:]):
            cell = math.ceil(side / self.grid)
            every = torch.eye(self.grid, device=images.device, dtype=images.dtype)[None]
            weights = F.interpolate(every, size=(self.grid + 1) * cell, mode="linear", align_corners=False)[0].T
            first = (shifts[..., axis] * cell).long().clamp_max(cell - 1)
            enlarged.append(weights[first[..., None] + torch.arange(side, device=images.device)])
        return enlarged[0] @ cells.to(images.dtype) @ enlarged[1].transpose(-1, -2)
