"""Does the network need the pixels that the map marks, where what they leave is filled in inconspicuously? ROAD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import relative_magnitude, shows_something
from lightning_modules.methods.variants import at_variants, noise, random_numbers, shared_batches
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.metrics.imputation import imputed
from lightning_modules.networks.network import Network

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class ROAD(AttributionMetric):
    r"""Remove and Debias: how the probability of the target changes when marked pixels are removed, and unmarked ones.

    Removed pixels become the weighted mean of their neighbours, and noise is added, so that the network cannot see
    from the shape of what is missing what was there. For each share of the pixels, ``p`` before and ``p'`` after:

    .. math:: \text{road_most} = \overline{p'_\text{most} - p}, \quad \text{road_least} = \overline{p'_\text{least} -
        p}, \quad \text{road} = (\text{road_least} - \text{road_most}) / 2

    the means over ``percentiles``, most or least important pixels first. All in [-1, 1]. It costs two forward passes
    for each percentile, and filling in costs about as much as a pass of a large network on a CPU.

    As in pytorch-grad-cam, but that exactly the share is removed also where many pixels are equal, as in Grad-CAM's
    flat parts: they go in the order of ``flip(argsort)``, last in reading order first. The noise follows from the seed
    and the image's key alone, and is not clipped. NaN where a map is constant or not finite.

    Args:
        percentiles: Percents of the pixels that are removed, each above 0 and below 100.
        sigma: Standard deviation of the noise in pixel units, at least 0; the authors' program has 0.01.
        max_batch: Most images in one forward pass, at least 1.
        seed: Seed of the noise.

    Raises:
        InputError: If an option is out of its range.

    Reference: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
    """

    columns = ("road", "road_most", "road_least")
    lower_is_better = ("road_most",)

    def __init__(
        self, percentiles: Sequence[float] = PERCENTILES, sigma: float = 0.01, max_batch: int = 64, seed: int = 0
    ) -> None:
        check_at_least_one(max_batch=max_batch)
        if not percentiles or not all(0 < percentile < 100 for percentile in percentiles):
            raise InputError(f"percentiles must lie above 0 and below 100, got {list(percentiles)}.")
        if not sigma >= 0:
            raise InputError(f"sigma must be at least 0, got {sigma}.")
        self.percentiles = tuple(percentiles)
        self.sigma = sigma
        self.max_batch = max_batch
        self.seed = seed

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        return 2 * len(self.percentiles) * len(methods)

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        images, drawn = forward_pass.images.detach(), random_numbers(forward_pass, self.seed)
        order = relative_magnitude(attribution).nan_to_num(0, 0, 0).flatten(1).argsort(dim=1, stable=True).flip(1)
        place = order.argsort(1).view(len(images), *images.shape[2:])
        n_variants = 2 * len(self.percentiles)
        change = forward_pass.target_probability.new_zeros(n_variants, len(images))
        for part, variants in shared_batches(len(images), n_variants, self.max_batch):
            numbers = range(variants.start, variants.stop)
            is_removed = torch.stack([self._is_removed(number, place[part]) for number in numbers])
            added = self.sigma * noise(drawn[part], variants, images[part])
            filled = imputed(images[part].repeat(len(numbers), 1, 1, 1), is_removed.flatten(0, 1)).view(added.shape)
            filled = filled + is_removed[:, :, None] * added
            after = at_variants(forward_pass, filled, part).target_probability.unflatten(0, added.shape[:2])
            change[variants, part] = after - forward_pass.target_probability[part]
        shows = shows_something(attribution.flatten(1))
        most, least = (change[first::2].mean(0).where(shows, torch.nan) for first in (0, 1))
        return {"road": (least - most) / 2, "road_most": most, "road_least": least}

    def _is_removed(self, number: int, place: Tensor) -> Tensor:
        """Which pixels a variant is without, bool; of each percentile the most important ones, then the least.

        Args:
            number: Of the variant.
            place: Of each pixel, 0 = the most important one.
        """
        n_pixels = place[0].numel()
        n = removed(n_pixels, self.percentiles[number // 2])
        return place >= n_pixels - n if number % 2 else place < n


def removed(n_pixels: int, percentile: float) -> int:
    """How many pixels a percentile removes: those that are not below NumPy's percentile of the others' share.

    Example:
        >>> removed(101, 10), removed(10, 50)
        (11, 5)
    """
    return n_pixels - math.ceil((n_pixels - 1) * (100 - percentile) / 100)
