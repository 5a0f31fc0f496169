"""Does the network need the pixels that the map marks, where what they leave is filled in inconspicuously? ROAD."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import Sign
from lightning_modules.methods.variants import at_variants, noise, random_numbers, shared_batches
from lightning_modules.metrics.base import AttributionMetric, without_degenerate
from lightning_modules.metrics.imputation import imputed
from lightning_modules.metrics.order import check_sign, note_of_signs, pixel_order
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
    flat parts: chance decides among them, see :func:`pixel_order`, and ``road_tied_pixels`` is the share of the pixels
    that are worth as much as another one. The noise follows from the seed and the image's key alone, and is not
    clipped.

    Args:
        percentiles: Percents of the pixels that are removed, each above 0 and below 100.
        sigma: Standard deviation of the noise in pixel units, at least 0; the authors' program has 0.01.
        max_batch: Most images in one forward pass, at least 1.
        seed: Seed of the noise, and of the draws that decide among pixels that are worth the same.
        sign: What a pixel is worth: see :class:`InsertionDeletion`. null = as each method says.

    Raises:
        InputError: If an option is out of its range.

    Reference: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "road": "How much more probability is lost when the pixels that the map marks are smoothed out than when the "
        "others are; half of the difference. Higher is better.",
        "road_most": "How the probability changes when the marked pixels are smoothed out. Lower is better.",
        "road_least": "How the probability changes when those that the map marks least are. Higher is better.",
        "road_tied_pixels": "Share of the pixels that a map marks as much as another. Chance decides which of them "
        "goes.",
    }
    columns = ("road", "road_most", "road_least", "road_tied_pixels")
    lower_is_better = ("road_most",)
    neutral = ("road_tied_pixels",)

    def __init__(
        self,
        percentiles: Sequence[float] = PERCENTILES,
        sigma: float = 0.01,
        max_batch: int = 64,
        seed: int = 0,
        sign: Sign | None = None,
    ) -> None:
        check_at_least_one(max_batch=max_batch)
        check_sign(sign)
        if not percentiles or not all(0 < percentile < 100 for percentile in percentiles):
            raise InputError(f"percentiles must lie above 0 and below 100, got {list(percentiles)}.")
        if not sigma >= 0:
            raise InputError(f"sigma must be at least 0, got {sigma}.")
        self.percentiles = tuple(percentiles)
        self.sigma = sigma
        self.max_batch = max_batch
        self.seed = seed
        self.sign = sign

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        return 2 * len(self.percentiles) * len(methods)

    def notes(self, methods: Mapping[str, AttributionMethod]) -> list[str]:
        return [note_of_signs(type(self).__name__, self.sign, methods)]

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        images, drawn = forward_pass.images.detach(), random_numbers(forward_pass, self.seed)
        place, tied, worth = pixel_order(attribution, forward_pass, method, self.sign, self.seed)
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
        most, least = (change[first::2].mean(0) for first in (0, 1))
        scores = {"road": (least - most) / 2, "road_most": most, "road_least": least, "road_tied_pixels": tied}
        return without_degenerate(scores, worth)

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
