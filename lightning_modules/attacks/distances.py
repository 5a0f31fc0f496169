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
        squares: The sum of their squares.
        magnitudes: The sum of their magnitudes; zero where only the norm inf is asked for.
        n_moved: How many are not zero; likewise.
        lowest: The least pixel that an image was moved to.
        highest: The greatest.
    """

    least: Tensor
    greatest: Tensor
    squares: Tensor
    magnitudes: Tensor
    n_moved: Tensor
    lowest: Tensor
    highest: Tensor

    @property
    def linf(self) -> Tensor:
        """The distance in the norm ∞."""
        return torch.maximum(self.greatest, -self.least)

    @property
    def l2(self) -> Tensor:
        """The distance in the norm 2."""
        return self.squares.sqrt()

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
    images = where_float64_is(images)
    exact, measured = images.double(), []
    for attacked in map(where_float64_is, adversarial):
        delta = (attacked.double() - exact).flatten(1)
        squares = (delta[:, None] @ delta[:, :, None])[:, 0, 0]
        magnitudes, n_moved = torch.zeros_like(squares), torch.zeros_like(squares)
        if norm != math.inf:
            magnitudes, n_moved = delta.abs().sum(1), (delta != 0).sum(1).double()
        of_pixels = attacked.amin((1, 2, 3)).double(), attacked.amax((1, 2, 3)).double()
        measured.append(Moved(delta.amin(1), delta.amax(1), squares, magnitudes, n_moved, *of_pixels))
    return measured
