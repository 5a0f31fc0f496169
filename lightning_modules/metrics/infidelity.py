"""Does the map foretell how the logit changes when the image does? Infidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.scaling import scaled_near_one
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.variants import at_variants, noise, random_numbers, shared_batches
from lightning_modules.metrics.base import AttributionMetric, without_degenerate
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers, seed_from


class Infidelity(AttributionMetric):
    r"""How far a map is from foretelling what noise does to the logit of the target: the mean square of the error.

    .. math:: \text{infidelity} = \frac{1}{n} \sum_{k=1}^{n} \left(\beta \, I_k \cdot \Phi(x) - \Delta_k\right)^2,
        \quad \Delta_k = f(x) - f(x - I_k)

    where each entry of :math:`I_k` is drawn from a normal distribution of deviation ``sigma``, and pixels are not
    clipped to [0, 1]. With ``normalize``, :math:`\beta \ge 0` is the factor that makes the error least, so the size of
    a map does not matter, but its sign does; it is 1 without, and then only maps in logits for each unit of pixels,
    such as gradients, can be compared. A map of one channel counts for each of the three colours.

    Infidelity is in squared logits: of a network whose logits vary twice as much it is four times as large for every
    map, so networks are not compared by it. And most of it is the variance of the logit, which hardly any map
    foretells. What a map does foretell is

    .. math:: \text{infidelity_explained} = 1 - \text{infidelity} \big/ \frac{1}{n} \sum_k \Delta_k^2,

    from 0 to 1 with ``normalize``. ``infidelity_explained_null`` is the same of the map with its pixels shuffled, by
    the seed and the image's key: a map that explains no more than that foretells nothing. It is about
    :math:`1 / (2 n)`. Both are NaN where the noise does not change the logit.

    The noise follows from the seed and the image's key alone. The logits do not depend on the map, so this costs
    ``n_samples`` forward passes for all methods together.

    Args:
        n_samples: Noisy copies of each image, at least 1; the authors' program has 1,000.
        sigma: Standard deviation of the noise in pixel units, above 0; the authors' program has 0.2.
        normalize: Whether the map is scaled to the least error, as in the authors' program; there also by factors
            below 0, which make a map and its negative equal.
        max_batch: Most images in one forward pass, at least 1.
        seed: Seed of the noise.

    Raises:
        InputError: If an option is out of its range.

    Reference: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. Where the best factor is
    positive, equal to Captum's ``infidelity`` of the same noise. The authors' program pulls the noise towards black;
    here it has no direction.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "infidelity": "How far a map is from foretelling what noise in the image does to the score of the class. "
        "Lower is better. Networks cannot be compared by it.",
        "infidelity_explained": "How much of what noise in the image does to the score a map foretells: 1 all, 0 "
        "nothing. Higher is better.",
        "infidelity_explained_null": "The same of the map with its pixels shuffled, which foretells nothing: chance.",
    }
    columns = ("infidelity", "infidelity_explained", "infidelity_explained_null")
    lower_is_better = ("infidelity",)
    neutral = ("infidelity_explained_null",)

    def __init__(
        self, n_samples: int = 1000, sigma: float = 0.2, normalize: bool = True, max_batch: int = 64, seed: int = 0
    ) -> None:
        check_at_least_one(n_samples=n_samples, max_batch=max_batch)
        if not sigma > 0:
            raise InputError(f"sigma must be above 0, got {sigma}.")
        self.n_samples = n_samples
        self.sigma = sigma
        self.normalize = normalize
        self.max_batch = max_batch
        self.seed = seed

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        return self.n_samples  # for all of them together

    def notes(self, methods: Mapping[str, AttributionMethod]) -> list[str]:
        return [
            "Infidelity is in squared logits of this network: networks are not compared by it. What a map foretells of "
            "the logit is infidelity_explained, beside infidelity_explained_null of the map with its pixels shuffled."
        ]

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        maps = attribution.to(torch.promote_types(attribution.dtype, torch.float32))
        # What the map is scaled by falls out again with beta.
        maps = scaled_near_one(maps) if self.normalize else maps
        # (2, N, C, H, W): as it is, and shuffled.
        maps = torch.stack([maps, _shuffled(maps, forward_pass, self.seed)])
        images, before = forward_pass.images.detach(), forward_pass.target_logit
        known, settings = _known.setdefault(forward_pass, {}), (self.n_samples, self.sigma, self.seed)
        is_new = settings not in known
        change = known.setdefault(settings, before.new_zeros(self.n_samples, len(images)))
        foretold = change.new_zeros(2, *change.shape)
        numbers = random_numbers(forward_pass, self.seed)
        for part, copies in shared_batches(len(images), self.n_samples, self.max_batch):
            moves = self.sigma * noise(numbers[part], copies, images[part])
            for of_map, each in zip(foretold, maps):
                of_map[copies, part] = (moves * each[part]).sum((2, 3, 4)).to(foretold.dtype)
            if is_new:
                after = at_variants(forward_pass, images[part] - moves, part).target_logit
                change[copies, part] = before[part] - after.unflatten(0, moves.shape[:2])
        if self.normalize:
            square = foretold.square().sum(1)
            factor = ((foretold * change).sum(1) / square.where(square > 0, 1)).clamp_min(0)
            foretold = foretold * factor[:, None]
        error = (foretold - change).square().mean(1)
        explained, by_chance = 1 - error / change.square().mean(0)
        scores = dict(zip(self.columns, (error[0], explained, by_chance), strict=True))
        return without_degenerate(scores, attribution)


def _shuffled(maps: Tensor, forward_pass: ForwardPass, seed: int) -> Tensor:
    """The maps ``(N, C, H, W)``, the pixels of each in an order that follows from the seed and the image's key."""
    draws = RandomNumbers([seed_from("shuffled", seed, key) for key in forward_pass.keys], maps.device)
    order = draws.words(slice(0, 1), maps[0, 0].numel())[0].argsort(1)
    return maps.flatten(2).gather(2, order[:, None].expand(-1, maps.shape[1], -1)).view(maps.shape)


_known: WeakKeyDictionary[ForwardPass, dict[tuple[int, float, int], Tensor]] = WeakKeyDictionary()
"""The changes of the logit ``(n_samples, N)`` that were found at a pass, as long as it lives."""
