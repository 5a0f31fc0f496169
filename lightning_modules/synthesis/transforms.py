"""Random transforms of an image before the network sees it, so that it holds under all of them, not at one place."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.text import NamedByOptions

Generators = Sequence[torch.Generator]


class Transform(NamedByOptions, ABC):
    """What a transform is: a differentiable call from images to images of the same size.

    All that is random about an image is drawn from its own generator, on the CPU: an image's transforms are then the
    same in any batch and on any device.
    """

    @abstractmethod
    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        """Images ``(N, 3, H, W)`` and a generator for each -> images ``(N, 3, H, W)``."""


class RandomShift(Transform):
    """Moves the image by whole pixels, mirroring it at its edges.

    Args:
        pixels: Farthest move up, down, left and right, at least 0; all up to it are equally likely.

    Reference: Mordvintsev, Olah & Tyka, "Inceptionism", 2015 (jitter).
    """

    def __init__(self, pixels: int = 8) -> None:
        if pixels < 0:
            raise InputError(f"RandomShift.pixels must be at least 0, got {pixels}.")
        self.pixels = pixels

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        draws = [torch.randint(-self.pixels, self.pixels + 1, (2,), generator=g) for g in generators]
        return shift(images, torch.stack(draws)) if self.pixels else images


class RandomScale(Transform):
    """Enlarges or shrinks the image about its centre, mirroring it at its edges; bilinear.

    Args:
        low: Smallest factor, above 0.
        high: Largest factor; all between are equally likely.
    """

    def __init__(self, low: float = 0.9, high: float = 1.1) -> None:
        if not 0 < low <= high:
            raise InputError(f"RandomScale needs 0 < low <= high, got {low} and {high}.")
        self.low = low
        self.high = high

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        return scale(images, uniform(self.low, self.high, generators))


class RandomRotation(Transform):
    """Turns the image about its centre, mirroring it at its edges.

    Args:
        degrees: Largest angle in either direction, in [0, 90]; all up to it are equally likely.
    """

    def __init__(self, degrees: float = 10.0) -> None:
        if not 0 <= degrees <= 90:
            raise InputError(f"RandomRotation.degrees must lie in [0, 90], got {degrees}.")
        self.degrees = degrees

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        return rotate(images, uniform(-self.degrees, self.degrees, generators)) if self.degrees else images


class GaussianBlur(Transform):
    """Blurs the image by a Gaussian of fixed width, mirroring it at its edges. Nothing about it is random.

    Args:
        sigma: Standard deviation in pixels, at least 0; 0 leaves the image as it is.

    Reference: Yosinski et al., "Understanding Neural Networks Through Deep Visualization", ICML 2015 workshop, who blur
    the image itself now and then; here the network sees it blurred, which damps high frequencies of the gradient.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        if not sigma >= 0:
            raise InputError(f"GaussianBlur.sigma must be at least 0, got {sigma}.")
        self.sigma = sigma

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        return gaussian_blur(images, self.sigma) if self.sigma else images


class GaussianNoise(Transform):
    """Adds noise to each pixel, anew at each step, so that no pattern finer than the noise pleases the network.

    Args:
        std: Standard deviation in pixel units, of [0, 1], at least 0; 0 leaves the image as it is. Pixels may then lie
            outside [0, 1].

    Reference: Fel et al., "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization", NeurIPS 2023, whose crops have it too.
    """

    def __init__(self, std: float = 0.05) -> None:
        if not std >= 0:
            raise InputError(f"GaussianNoise.std must be at least 0, got {std}.")
        self.std = std

    def __call__(self, images: Tensor, generators: Generators) -> Tensor:
        if not self.std:
            return images
        noise = [torch.randn(images.shape[1:], generator=generator) for generator in generators]
        return images + self.std * torch.stack(noise).to(images)


def shift(images: Tensor, offsets: Tensor) -> Tensor:
    """Moves image ``n`` down and right by ``offsets[n]``, integer ``(N, 2)``, mirroring it at its edges.

    Example:
        >>> shift(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor([[0, 1]]))  # right by a pixel
        tensor([[[[2., 1., 2.]]]])
    """
    rows, columns = _grid(images)
    images = _sample(images, 2, rows - offsets[:, 0].view(-1, 1, 1))
    return _sample(images, 3, columns - offsets[:, 1].view(-1, 1, 1))


def scale(images: Tensor, factors: Tensor) -> Tensor:
    """Enlarges image ``n`` by ``factors[n]`` about its centre, float ``(N,)``; bilinear."""
    rows, columns = _grid(images)
    factors = factors.view(-1, 1, 1)
    images = _sample(images, 2, rows / factors + _center(rows) * (1 - 1 / factors))
    return _sample(images, 3, columns / factors + _center(columns) * (1 - 1 / factors))


def rotate(images: Tensor, degrees: Tensor, mirrored: bool = True) -> Tensor:
    """Turns image ``n`` counterclockwise by ``degrees[n]`` about its centre, float ``(N,)``; beyond its edges it is
    mirrored, or else 0.

    Reference: Paeth, "A Fast Algorithm for General Raster Rotation", Graphics Interface 1986: three shears, each of
    which moves whole rows or columns.
    """
    rows, columns = _grid(images)
    down, right = rows - _center(rows), columns - _center(columns)
    angle = torch.deg2rad(degrees).view(-1, 1, 1)
    horizontal = columns - torch.tan(angle / 2) * down
    vertical = rows + torch.sin(angle) * right
    for dim, positions in ((3, horizontal), (2, vertical), (3, horizontal)):
        images = _sample(images, dim, positions, mirrored)
    return images


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Convolves each channel with a Gaussian of standard deviation ``sigma`` > 0, cut off at 3 sigma."""
    radius = math.ceil(3 * sigma)
    offsets = range(-radius, radius + 1)
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in offsets]
    for dim in (2, 3):
        size = images.shape[dim]
        mirrored = _mirror(torch.arange(-radius, size + radius), size).to(images.device)
        padded = images.index_select(dim, mirrored)
        images = torch.zeros_like(images)
        for k, weight in enumerate(weights):
            images = images + weight / sum(weights) * padded.narrow(dim, k, size)
    return images


def _sample(images: Tensor, dim: int, positions: Tensor, mirrored: bool = True) -> Tensor:
    """Reads the images at fractional positions along one axis: linear between pixels, mirrored or 0 beyond the edges.

    Args:
        images: ``(N, C, H, W)``.
        dim: The axis, 2 or 3.
        positions: float64 ``(N or 1, H or 1, W or 1)``, in pixels.
    """
    # One axis at a time, not by grid_sample: on a GPU its backward pass adds in an order that changes from run to run,
    # and hundreds of steps turn a rounding into another image. Here at most two values add up at a place (unless an
    # image shrinks below half), and of two the order does not matter.
    below = positions.floor()
    n, _, height, width = images.shape
    shape = (n, images.shape[1], height, width)

    def read(index: Tensor) -> Tensor:
        size = images.shape[dim]
        places = _mirror(index.long(), size).to(images.device)
        found = images.gather(dim, places.expand(n, height, width)[:, None].expand(shape))
        return found if mirrored else found * ((index >= 0) & (index < size)).to(images)[:, None]

    if _are_equal(positions, below):
        return read(below)
    fraction = (positions - below).to(images)[:, None]
    return (1 - fraction) * read(below) + fraction * read(below + 1)


def _are_equal(positions: Tensor, others: Tensor) -> bool:
    # They lie on the host, as what is drawn does: no device is waited for.
    return bool((positions == others).all())


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices beyond the edges, reflected at the outermost pixels: -1 -> 1, size -> size - 2."""
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.minimum(index, period - index)


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers ``(1, H, 1)`` and column numbers ``(1, 1, W)``."""
    height, width = images.shape[2:]
    return (
        torch.arange(height, dtype=torch.float64).view(1, -1, 1),
        torch.arange(width, dtype=torch.float64).view(1, 1, -1),
    )


def _center(positions: Tensor) -> float:
    return (positions.numel() - 1) / 2


def uniform(low: float, high: float, generators: Generators) -> Tensor:
    """A number from ``low`` to ``high`` from each generator, float64 ``(N,)``."""
    draws = [torch.rand((), generator=generator, dtype=torch.float64) for generator in generators]
    return low + (high - low) * torch.stack(draws)
