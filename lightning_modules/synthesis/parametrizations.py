"""Parametrizations of an image: what the optimizer changes, and the pixels that it stands for."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.text import NamedByOptions

Size = tuple[int, int]
"""Height and width in pixels."""

_MARGIN = 1e-6
# Lucid's square root of the colours' covariance over ImageNet, scaled so that its longest column has length 1: three
# uncorrelated channels -> red, green, blue.
_COLOR_ROOT = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


class Parametrization(NamedByOptions, ABC):
    """What is optimized instead of pixels. Whatever its parameters are, the pixels lie in [0, 1]."""

    @abstractmethod
    def start(self, size: Size, generator: torch.Generator) -> Tensor:
        """Random parameters of one image, ``(1, ...)``.

        Drawn on the CPU and in float32, so that every device and precision starts from the same.
        """

    @abstractmethod
    def pixels(self, parameters: Tensor, size: Size) -> Tensor:
        """Pixels in [0, 1], ``(N, 3, H, W)``, differentiable."""

    @abstractmethod
    def parameters(self, images: Tensor) -> Tensor:
        """The parameters whose pixels are ``images``; pixels within 1e-6 of 0 or 1 are moved there."""

    def frequencies(self, size: Size) -> Tensor | None:
        """That of each parameter, in cycles a pixel, in a shape that fits them; None = they are of no frequency."""
        return None


class PixelImage(Parametrization):
    """Each pixel by itself, through a sigmoid.

    Args:
        std: Standard deviation of the noise to start from, before the sigmoid, at least 0.
    """

    def __init__(self, std: float = 0.2) -> None:
        self.std = _checked_std(std)

    def start(self, size: Size, generator: torch.Generator) -> Tensor:
        return self.std * torch.randn(1, 3, *size, generator=generator, dtype=torch.float32)

    def pixels(self, parameters: Tensor, size: Size) -> Tensor:
        return parameters.sigmoid()

    def parameters(self, images: Tensor) -> Tensor:
        return images.clamp(_MARGIN, 1 - _MARGIN).logit()


class FourierImage(Parametrization):
    r"""The image's spectrum in decorrelated colours, through a sigmoid.

    .. math:: x = \mathrm{sigmoid}\big(C\, \mathcal{F}^{-1}(s \cdot z)\big), \quad
        s(f) = \frac{1}{4 \max(f, 1 / \max(H, W))^{\text{decay}}}

    for parameters ``z``: steps of the optimizer are as large in low frequencies as in high ones, relative to what
    natural images have of them. ``C`` maps three channels that are uncorrelated in ImageNet to red, green and blue.

    Args:
        std: Standard deviation of the spectrum to start from, at least 0.
        decay: Exponent of the frequency in ``s``, at least 0: the higher, the smoother the image. Amplitudes of natural
            images fall with exponent 1.
        decorrelate_colors: Whether ``C`` is used; otherwise the channels are the colours.

    Reference: Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017; the factor 1/4 and ``C`` are those
    of its code, Lucid.
    """

    def __init__(self, std: float = 0.2, decay: float = 1.0, decorrelate_colors: bool = True) -> None:
        self.std = _checked_std(std)
        if not decay >= 0:
            raise InputError(f"FourierImage.decay must be at least 0, got {decay}.")
        self.decay = decay
        self.decorrelate_colors = decorrelate_colors

    def start(self, size: Size, generator: torch.Generator) -> Tensor:
        height, width = size
        # Real and imaginary parts, since Adam should scale them apart.
        return self.std * torch.randn(1, 3, height, width // 2 + 1, 2, generator=generator, dtype=torch.float32)

    def pixels(self, parameters: Tensor, size: Size) -> Tensor:
        spectrum = torch.view_as_complex(parameters) * _frequency_scale(size, self.decay).to(parameters)
        channels = torch.fft.irfft2(spectrum, s=size, norm="ortho")
        return self._mix(channels, inverse=False).sigmoid()

    def parameters(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        channels = self._mix(images.clamp(_MARGIN, 1 - _MARGIN).logit(), inverse=True)
        spectrum = torch.fft.rfft2(channels, norm="ortho") / _frequency_scale((height, width), self.decay).to(images)
        return torch.view_as_real(spectrum).clone()

    def frequencies(self, size: Size) -> Tensor:
        return _frequencies(size)[..., None]

    def _mix(self, channels: Tensor, inverse: bool) -> Tensor:
        if not self.decorrelate_colors:
            return channels
        root = torch.tensor(_COLOR_ROOT, dtype=torch.float64)
        matrix = root / root.norm(dim=0).max()
        return torch.einsum("rc,nchw->nrhw", (matrix.inverse() if inverse else matrix).to(channels), channels)


def _frequency_scale(size: Size, decay: float) -> Tensor:
    """``s(f)`` of :class:`FourierImage`, float64 ``(H, W // 2 + 1)``."""
    return 0.25 / _frequencies(size).clamp_min(1 / max(size)) ** decay


def _frequencies(size: Size) -> Tensor:
    """Of a spectrum, in cycles a pixel, float64 ``(H, W // 2 + 1)``."""
    height, width = size
    vertical = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    return torch.hypot(vertical, torch.fft.rfftfreq(width, dtype=torch.float64))


def _checked_std(std: float) -> float:
    if not std >= 0:
        raise InputError(f"The std of a parametrization must be at least 0, got {std}.")
    return std
