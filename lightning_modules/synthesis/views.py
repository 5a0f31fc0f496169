"""Views of an image: turned, scaled and moved at once, in other colours, of another size."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.synthesis.transforms import Generators, Transform, rotate, uniform


class RandomView(Transform):
    """Turns, scales and moves the image at once; what lies outside of it has one random colour, anew at each step.

    Mirrored edges, as those of the other transforms, complete an object that is cut in half there.

    Args:
        pixels: Farthest move in each direction, in pixels, at least 0.
        low: Smallest factor, above 0.
        high: Largest factor.
        degrees: Largest angle, in [0, 90].
    """

    def __init__(self, pixels: float = 32, low: float = 0.6, high: float = 1.7, degrees: float = 20) -> None:
        if not pixels >= 0 or not 0 < low <= high or not 0 <= degrees <= 90:
            raise InputError(
                "RandomView needs pixels of at least 0, 0 < low <= high, and degrees in [0, 90], got "
                f"{pixels}, {low}, {high} and {degrees}."
            )
        self.pixels = pixels
        self.low = low
        self.high = high
        self.degrees = degrees

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        degrees = uniform(-self.degrees, self.degrees, generators)
        factors = uniform(self.low, self.high, generators)
        offsets = torch.stack([uniform(-self.pixels, self.pixels, generators) for _ in range(2)], 1)
        colors = torch.stack([torch.rand(images.shape[1], generator=generator) for generator in generators])
        # What is read from outside is 0 in all channels, so the last one says how much of a pixel is inside.
        channels = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        turned = rotate(channels, degrees, mirrored=False) if self.degrees else channels
        rows, columns = (
            _weights(positions, size).to(images)
            for positions, size in zip(_moved(images, factors, offsets), images.shape[2:])
        )
        seen = rows @ turned @ columns.transpose(2, 3)
        return seen[:, :-1] + (1 - seen[:, -1:]) * colors.to(images)[:, :, None, None]


class RandomColor(Transform):
    """Changes the contrast about grey, and adds a constant to each channel, anew at each step.

    Args:
        contrast: The contrast's factor is ``exp(u)``, with ``u`` from -contrast to contrast; at least 0.
        offset: Largest constant, in pixel units, of [0, 1], at least 0. Pixels may then lie outside [0, 1].
    """

    def __init__(self, contrast: float = 0.3, offset: float = 0.1) -> None:
        if not contrast >= 0 or not offset >= 0:
            raise InputError(f"RandomColor needs contrast and offset of at least 0, got {contrast} and {offset}.")
        self.contrast = contrast
        self.offset = offset

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        factors = uniform(-self.contrast, self.contrast, generators).exp().view(-1, 1, 1, 1)
        offsets = torch.stack([uniform(-self.offset, self.offset, generators) for _ in images[0]], 1)
        return (images - 0.5) * factors.to(images) + 0.5 + offsets.to(images)[:, :, None, None]


def resized(images: Tensor, size: int) -> Tensor:
    """Images ``(N, C, H, W)`` -> ``(N, C, size, size)``, each pixel a mean of those that it covers, weighted linearly.

    By matrices, whose products are the same from run to run on a GPU too.

    Example:
        >>> resized(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]] * 4]]), 2)
        tensor([[[[0.1429, 0.8571],
                  [0.1429, 0.8571]]]])
    """
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    rows, columns = (_weights(centers * of - 0.5, of) for of in images.shape[2:])
    rows, columns = ((weights / weights.sum(-1, keepdim=True)).to(images) for weights in (rows, columns))
    return rows @ images @ columns.transpose(-1, -2)


def _moved(images: Tensor, factors: Tensor, offsets: Tensor) -> list[Tensor]:
    """The rows and the columns ``(N, 1, H)`` that are seen after images are scaled about their centre and moved."""
    found = []
    for k, size in enumerate(images.shape[2:]):
        from_center = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        found.append(((from_center - offsets[:, k, None]) / factors[:, None] + (size - 1) / 2)[:, None])
    return found


def _weights(positions: Tensor, size: int) -> Tensor:
    """How much of each of ``size`` pixels is read at positions ``(..., S)``: ``(..., S, size)``.

    Linear between pixels; over as many of them as lie between two positions, where these are farther apart. Outside,
    nothing is read.
    """
    width = (positions[..., 1:2] - positions[..., :1]).clamp_min(1.0) if positions.shape[-1] > 1 else 1.0
    distances = (positions[..., None] - torch.arange(size)).abs()
    return (1 - distances / torch.as_tensor(width)[..., None]).clamp_min(0) / torch.as_tensor(width)[..., None]
