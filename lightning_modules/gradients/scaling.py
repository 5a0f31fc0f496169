"""Numbers brought near 1, where sums, squares and products of them neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor


def scaled_near_one(values: Tensor) -> Tensor:
    """The values ``(N, ...)`` with each image's times a power of two that brings its largest entry into [0.5, 1).

    It changes no direction, share or rank, not by a bit: only entries 10^38 times smaller than the largest may become
    0. Values of which one is not finite stay as they are.

    Example:
        >>> scaled_near_one(torch.tensor([[3e38, -1.5e38], [3e-40, 0.0]])).abs() > 0.25
        tensor([[ True,  True],
                [ True, False]])
    """
    largest = largest_magnitude(values)
    exponent = -torch.frexp(largest.where(largest.isfinite(), 0.5)).exponent
    # In two steps: float32 has no power of two above 2^127, and subnormal numbers need more.
    half = exponent // 2
    return (values * torch.exp2(half.to(values.dtype))).mul_(torch.exp2((exponent - half).to(values.dtype)))


def largest_magnitude(values: Tensor) -> Tensor:
    """The largest magnitude of each image's values ``(N, ...)``, NaN where one is; ``(N, 1, ...)``."""
    of_image = tuple(range(1, values.ndim))
    return torch.maximum(values.amax(of_image, keepdim=True), -values.amin(of_image, keepdim=True))
