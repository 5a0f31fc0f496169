"""What figures and metrics share about attribution maps."""

from __future__ import annotations

from torch import Tensor


def magnitude(attribution: Tensor) -> Tensor:
    """How much each pixel matters, ``(N, H, W)``, at least 0, of maps ``(N, C, H, W)``.

    Of one channel this is the map with its negative part cut off; of several, the sum of the channels' magnitudes.
    """
    return attribution[:, 0].clamp_min(0) if attribution.shape[1] == 1 else attribution.abs().sum(1)


def shows_something(flat: Tensor) -> Tensor:
    """Which maps, flattened to ``(N, n)``, are finite and not constant: bool ``(N,)``."""
    return flat.isfinite().all(1) & (flat.amax(1) > flat.amin(1))
