"""Does the map foretell how the logit changes when the image does? Infidelity."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.scaling import scaled_near_one
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import shows_something
from lightning_modules.methods.variants import at_variants, noise, random_numbers, shared_batches
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.networks.network import Network


class Infidelity(AttributionMetric):
    r"""How far a map is from foretelling what noise does to the logit of the target: the mean square of the error.

    .. math:: \frac{1}{n} \sum_{k=1}^{n} \left(\beta \, I_k \cdot \Phi(x) - (f(x) - f(x - I_k))\right)^2

    where each entry of :math:`I_k` is drawn from a normal distribution of deviation ``sigma``, and pixels are not
    clipped to [0, 1]. With ``normalize``, :math:`\beta` is the factor that makes the error least, so the size of a map
    does not matter; it is 1 without, and then only maps in logits for each unit of pixels, such as gradients, can be
    compared. It is in squared logits. A map of one channel counts for each of the three colours.

    The noise follows from the seed and the image's key alone. The logits do not depend on the map, so this costs
    ``n_samples`` forward passes for all methods together.

    NaN where a map is constant or not finite.

    Args:
        n_samples: Noisy copies of each image, at least 1; the authors' program has 1,000.
        sigma: Standard deviation of the noise in pixel units, above 0; the authors' program has 0.2.
        normalize: Whether the map is scaled to the least error, as in the authors' program.
        max_batch: Most images in one forward pass, at least 1.
        seed: Seed of the noise.

    Raises:
        InputError: If an option is out of its range.

    Reference: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019. Equal to Captum's
    ``infidelity`` of the same noise. The authors' program pulls the noise towards black; here it has no direction.
    """

    columns = ("infidelity",)
    lower_is_better = columns

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

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        at_least_float32 = torch.promote_types(attribution.dtype, torch.float32)
        maps = attribution.to(at_least_float32)
        # What the map is scaled by falls out again with beta.
        maps = scaled_near_one(maps) if self.normalize else maps
        images, before = forward_pass.images.detach(), forward_pass.target_logit
        known, settings = _known.setdefault(forward_pass, {}), (self.n_samples, self.sigma, self.seed)
        is_new = settings not in known
        change = known.setdefault(settings, before.new_zeros(self.n_samples, len(images)))
        foretold, numbers = torch.zeros_like(change), random_numbers(forward_pass, self.seed)
        for part, copies in shared_batches(len(images), self.n_samples, self.max_batch):
            moves = self.sigma * noise(numbers[part], copies, images[part])
            foretold[copies, part] = (moves * maps[part]).sum((2, 3, 4)).to(foretold.dtype)
            if is_new:
                after = at_variants(forward_pass, images[part] - moves, part).target_logit
                change[copies, part] = before[part] - after.unflatten(0, moves.shape[:2])
        if self.normalize:
            square = foretold.square().sum(0)
            foretold = foretold * ((foretold * change).sum(0) / square.where(square > 0, 1))
        infidelity = (foretold - change).square().mean(0)
        return {"infidelity": infidelity.where(shows_something(attribution.flatten(1)), torch.nan)}


_known: WeakKeyDictionary[ForwardPass, dict[tuple[int, float, int], Tensor]] = WeakKeyDictionary()
"""The changes of the logit ``(n_samples, N)`` that were found at a pass, as long as it lives."""
