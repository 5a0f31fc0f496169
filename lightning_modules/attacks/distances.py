"""How far images were moved, and to which pixels; the differences are taken in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.host import where_float64_is


class Moved(NamedTuple):
    """What is measured of N images that were moved; float64 ``(N,)`` each, NaN where a pixel is.

    Attributes:
        least: The least difference of an image's pixels, signed.
        greatest: The greatest.
        l2: The distance in the norm 2.
        magnitudes: The sum of their magnitudes; zero where only the norm inf is asked for.
        n_moved: How many are not zero; likewise.
        lowest: The least pixel that an image was moved to.
        highest: The greatest.
    """

    least: Tensor
    greatest: Tensor
    l2: Tensor
    magnitudes: Tensor
    n_moved: Tensor
    lowest: Tensor
    highest: Tensor

    @property
    def linf(self) -> Tensor:
        """The distance in the norm ∞."""
        return torch.maximum(self.greatest, -self.least)

    def distance(self, norm: float) -> Tensor:
        """The distance in the norm inf, 2 or 1."""
        return {math.inf: self.linf, 2.0: self.l2, 1.0: self.magnitudes}[norm]


def moved(images: Tensor, adversarial: Sequence[Tensor], norm: float) -> list[Moved]:
    """Measures how far images ``(N, C, H, W)`` were moved.

    Args:
        images: Before.
        adversarial: After, one or more times; of the same shape.
        norm: Which is going to be asked for beside inf and 2.
    """
    exact, measured = _in_order(images).double(), []
    for attacked in map(_in_order, adversarial):
        delta = attacked.to(torch.float64, copy=True).sub_(exact)
        l2 = torch.linalg.vector_norm(delta, dim=1)
        magnitudes, n_moved = torch.zeros_like(l2), torch.zeros_like(l2)
        if norm != math.inf:
            magnitudes, n_moved = delta.abs().sum(1), (delta != 0).sum(1).double()
        of_pixels = attacked.amin(1).double(), attacked.amax(1).double()
        measured.append(Moved(delta.amin(1), delta.amax(1), l2, magnitudes, n_moved, *of_pixels))
    return measured


def _in_order(images: Tensor) -> Tensor:
    """Images as ``(N, H * W * C)``, which of channels that lie last takes no copy."""
    return where_float64_is(images).permute(0, 2, 3, 1).flatten(1)
