"""How far images were moved, and to which pixels; the differences are taken in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_modules.host import lies_on_host, where_float64_is

_BLOCK = 1 << 16
"""Numbers of an image that are measured at a time on the host, whose caches hold what is made of them."""


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
    with_all = norm != math.inf
    images, *adversarial = map(where_float64_is, (images, *adversarial))
    known = all(of.dtype in (torch.float32, torch.float64) for of in (images, *adversarial))
    return (_moved_on_host if lies_on_host(images) and known else _moved_on_device)(images, adversarial, with_all)


def _moved_on_device(images: Tensor, adversarial: Sequence[Tensor], with_all: bool) -> list[Moved]:
    exact = images.double()
    measured = []
    for attacked in adversarial:
        delta = (attacked.double() - exact).flatten(1)
        squares = (delta[:, None] @ delta[:, :, None])[:, 0, 0]
        magnitudes, n_moved = torch.zeros_like(squares), torch.zeros_like(squares)
        if with_all:
            magnitudes, n_moved = delta.abs().sum(1), (delta != 0).sum(1).double()
        of_pixels = attacked.amin((1, 2, 3)).double(), attacked.amax((1, 2, 3)).double()
        measured.append(Moved(delta.amin(1), delta.amax(1), squares, magnitudes, n_moved, *of_pixels))
    return measured


def _moved_on_host(images: Tensor, adversarial: Sequence[Tensor], with_all: bool) -> list[Moved]:
    """The same, faster on a processor: block by block, so that its caches hold all that is made of a block."""
    clean, *moved_to = (_numbers(of, images) for of in (images, *adversarial))
    starts = range(0, clean.shape[1], _BLOCK)
    found = np.zeros((len(adversarial), len(Moved._fields), len(starts), len(clean)))
    exact, delta = np.empty((2, min(_BLOCK, clean.shape[1])))
    with np.errstate(invalid="ignore"):  # of images that are not finite
        for i, image in enumerate(clean):
            for k, start in enumerate(starts):
                block = image[start : start + _BLOCK]
                before, change = exact[: len(block)], delta[: len(block)]
                before[:] = block
                for attacked, of_budget in zip(moved_to, found):
                    pixels = attacked[i, start : start + _BLOCK]
                    change[:] = pixels
                    change -= before
                    of_pixels = pixels.min(), pixels.max()
                    beyond = (np.abs(change).sum(), np.count_nonzero(change)) if with_all else (0, 0)
                    of_budget[:, k, i] = change.min(), change.max(), change @ change, *beyond, *of_pixels
    return [Moved(*map(torch.from_numpy, _of_images(*of_budget))) for of_budget in found]


def _of_images(*of_blocks: np.ndarray) -> list[np.ndarray]:
    """What is :class:`Moved` of whole images, from that of their blocks ``(n_blocks, N)``."""
    reductions: tuple[Callable[..., np.ndarray], ...] = (np.min, np.max, np.sum, np.sum, np.sum, np.min, np.max)
    return [reduce(of, axis=0) for reduce, of in zip(reductions, of_blocks, strict=True)]


def _numbers(of: Tensor, images: Tensor) -> np.ndarray:
    """The numbers of a tensor of the images' shape, in the order in which the images lie: ``(N, C * H * W)``."""
    channels_lie_last = images.is_contiguous(memory_format=torch.channels_last)
    laid_out = of.detach().contiguous(
        memory_format=torch.channels_last if channels_lie_last else torch.contiguous_format
    )
    return (laid_out.permute(0, 2, 3, 1) if channels_lie_last else laid_out).flatten(1).numpy()
