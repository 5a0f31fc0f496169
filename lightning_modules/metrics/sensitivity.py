"""Does the map change when the image hardly does? Max-sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.scaling import scaled_near_one
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.explain import explain
from lightning_modules.methods.maps import shows_something
from lightning_modules.methods.variants import noise, random_numbers, shared_batches
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers


class SensitivityMax(AttributionMetric):
    r"""How far a map moves at the most, as a share of its own size, when each pixel of the image moves a little.

    .. math:: \max_{k \le n} \frac{\lVert \Phi(x + \delta_k) - \Phi(x) \rVert_2}{\lVert \Phi(x) \rVert_2}

    where each entry of :math:`\delta_k` is uniform in [-radius, radius]: as in Captum's ``sensitivity_max``, the pixels
    are not clipped to [0, 1]. The target is that of the image itself, and a method that draws noise draws the same for
    all copies of an image, so what is measured is the change of the image alone. The copies follow from the seed and
    the image's key. The maps are made anew, so this costs what the method does, ``n_samples`` times.

    NaN also where the map of a copy is not finite.

    Args:
        n_samples: Copies of each image, at least 1; Captum's default.
        radius: How far a pixel may move, in [0, 1]; Captum's default, about 5/255.
        max_batch: Most images whose maps are made at once, at least 1.
        seed: Seed of the copies.

    Raises:
        InputError: If an option is out of its range.

    Reference: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "sensitivity_max": "How far a map moves at the most, as a share of its size, when the image hardly changes. "
        "Lower is better.",
    }
    columns = ("sensitivity_max",)
    lower_is_better = columns

    def __init__(self, n_samples: int = 10, radius: float = 0.02, max_batch: int = 64, seed: int = 0) -> None:
        check_at_least_one(n_samples=n_samples, max_batch=max_batch)
        if not 0 < radius <= 1:
            raise InputError(f"radius must be above 0 and at most 1, got {radius}.")
        self.n_samples = n_samples
        self.radius = radius
        self.max_batch = max_batch
        self.seed = seed

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        return self.n_samples * sum(1 + method.n_passes(network) for method in methods)

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        images, numbers = forward_pass.images.detach(), random_numbers(forward_pass, self.seed)
        greatest = relative_changes(attribution, attribution[None])[0]
        for part, copies in shared_batches(len(images), self.n_samples, self.max_batch):
            k, keys = copies.stop - copies.start, forward_pass.keys[part]
            drawn = noise(numbers[part], copies, images[part], RandomNumbers.uniform)
            moved = images[part] + self.radius * (2 * drawn - 1)
            targets = forward_pass.target[part].repeat(k)
            with trusted():
                (maps,) = explain(forward_pass.network, moved.flatten(0, 1), [method], targets, keys=keys * k).values()
            changes = relative_changes(attribution[part], maps.unflatten(0, moved.shape[:2]))
            greatest[part] = torch.maximum(greatest[part], changes.amax(0))
        return {"sensitivity_max": greatest}


def relative_changes(attribution: Tensor, others: Tensor) -> Tensor:
    """The L2 norm of the differences of maps from a first one, as shares of its own: ``(K, n)``.

    NaN where a first map is constant, or a map is not finite.

    Args:
        attribution: The first maps, ``(n, C, H, W)``.
        others: Others of the same images, ``(K, n, C, H, W)``.
    """
    at_least_float32 = torch.promote_types(attribution.dtype, torch.float32)
    # All maps of an image are scaled by the same, so that no square overflows or vanishes.
    together = torch.cat([attribution[None], others]).to(at_least_float32).transpose(0, 1)
    scaled = scaled_near_one(together).flatten(2)
    first, rest = scaled[:, :1], scaled[:, 1:]
    changes = (rest - first).norm(dim=2) / first.norm(dim=2)
    return changes.where(changes.isfinite() & shows_something(attribution.flatten(1))[:, None], torch.nan).T
