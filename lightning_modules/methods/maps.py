"""What figures and metrics share about attribution maps."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.gradients.scaling import scaled_near_one


def magnitude(attribution: Tensor) -> Tensor:
    """How much each pixel matters, ``(N, H, W)``, at least 0, of maps ``(N, C, H, W)``.

    Of one channel this is the map with its negative part cut off; of several, the sum of the channels' magnitudes.
    """
    return attribution[:, 0].clamp_min(0) if attribution.shape[1] == 1 else attribution.abs().sum(1)


def relative_magnitude(attribution: Tensor) -> Tensor:
    """:func:`magnitude` up to a factor, a power of two for each map that brings its largest entry near 1.

    It is at least float32, so that neither a map of 3e38 nor one of 1e-40, nor one in float16, loses what its pixels
    are worth to each other when they are added or multiplied. Maps that are not finite stay so.
    """
    at_least_float32 = torch.promote_types(attribution.dtype, torch.float32)
    return magnitude(scaled_near_one(attribution.to(at_least_float32)))


def shows_something(flat: Tensor) -> Tensor:
    """Which maps, flattened to ``(N, n)``, are finite and not constant: bool ``(N,)``."""
    # Both are NaN where any value is; and an infinite value is one of them.
    least, greatest = flat.amin(1), flat.amax(1)
    return least.isfinite() & greatest.isfinite() & (greatest > least)
