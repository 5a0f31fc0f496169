"""What figures and metrics share about attribution maps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.gradients.scaling import scaled_near_one

Sign = Literal["positive", "absolute", "signed"]
"""What a pixel is worth: its channels' sum with what is negative cut off; their magnitudes' sum; their sum."""


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


def relative_worth(attribution: Tensor, sign: Sign) -> Tensor:
    """What each pixel is worth by ``sign``, ``(N, H, W)``, up to a factor as :func:`relative_magnitude`.

    Example:
        >>> attribution = torch.tensor([0.5, -0.25]).view(1, 2, 1, 1)
        >>> [relative_worth(part, "positive").item() for part in (attribution, -attribution)]
        [0.25, 0.0]
        >>> [relative_worth(-attribution, sign).item() for sign in ("absolute", "signed")]
        [0.75, -0.25]
    """
    scaled = scaled_near_one(attribution.to(torch.promote_types(attribution.dtype, torch.float32)))
    if sign == "absolute":
        return scaled.abs().sum(1)
    return scaled.sum(1) if sign == "signed" else scaled.sum(1).clamp_min(0)


def shows_something(flat: Tensor) -> Tensor:
    """Which maps, flattened to ``(N, n)``, are finite and not constant up to rounding: bool ``(N,)``.

    A constant map that was enlarged may differ from itself in the last bit of a number.
    """
    # Both are NaN where any value is; and an infinite value is one of them.
    least, greatest = flat.amin(1), flat.amax(1)
    rounding = 4 * torch.finfo(flat.dtype).eps * torch.maximum(least.abs(), greatest.abs())
    return least.isfinite() & greatest.isfinite() & (greatest - least > rounding)
