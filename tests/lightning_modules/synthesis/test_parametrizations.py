from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch

from lightning_modules import InputError
from lightning_modules.synthesis import FourierImage, Parametrization, PixelImage

SIZES = [(6, 8), (7, 5)]
ALL = [PixelImage(), FourierImage(), FourierImage(decay=1.5), FourierImage(decorrelate_colors=False)]


@pytest.mark.parametrize("parametrization", ALL, ids=repr)
@pytest.mark.parametrize("size", SIZES)
class TestAll:
    def test_round_trip(self, parametrization: Parametrization, size: tuple[int, int]) -> None:
        images = torch.rand(2, 3, *size, dtype=torch.float64)
        back = parametrization.pixels(parametrization.parameters(images), size)
        torch.testing.assert_close(back, images.clamp(1e-6, 1 - 1e-6), rtol=0, atol=1e-12)

    def test_pixels_lie_in_0_1_whatever_the_parameters(
        self, parametrization: Parametrization, size: tuple[int, int]
    ) -> None:
        pixels = parametrization.pixels(1e4 * parametrization.start(size, torch.Generator().manual_seed(0)), size)
        assert pixels.shape == (1, 3, *size)
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        assert pixels.max() - pixels.min() > 0.9

    def test_gradient(self, parametrization: Parametrization, size: tuple[int, int]) -> None:
        start = parametrization.start(size, torch.Generator().manual_seed(0)).double().requires_grad_()
        assert torch.autograd.gradcheck(lambda z: parametrization.pixels(z, size), start)

    def test_generator_decides_the_start(self, parametrization: Parametrization, size: tuple[int, int]) -> None:
        first, again, other = (parametrization.start(size, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("parametrization", ALL[:2], ids=repr)
def test_start_does_not_depend_on_the_default_dtype(
    parametrization: Parametrization, double_by_default: Callable[[], AbstractContextManager[None]]
) -> None:
    single = parametrization.start((6, 8), torch.Generator().manual_seed(0))
    with double_by_default():
        assert torch.equal(parametrization.start((6, 8), torch.Generator().manual_seed(0)), single)


def test_no_noise_starts_from_grey() -> None:
    for parametrization in (PixelImage(std=0), FourierImage(std=0)):
        pixels = parametrization.pixels(parametrization.start((4, 4), torch.Generator()), (4, 4))
        assert torch.equal(pixels, torch.full((1, 3, 4, 4), 0.5))


def test_fourier_by_hand() -> None:
    """One wave along the rows: frequency 1/4 of a cycle a pixel, so s = 1; a coefficient z gives 2 z cos / 4."""
    parametrization = FourierImage(decorrelate_colors=False)
    parameters = torch.zeros(1, 3, 4, 3, 2, dtype=torch.float64)
    parameters[0, 0, 0, 1, 0] = 1.0
    wave = 2 * np.cos(2 * np.pi * np.arange(4) / 4) / np.sqrt(16)
    expected = np.tile(1 / (1 + np.exp(-wave)), (4, 1))
    pixels = parametrization.pixels(parameters, (4, 4))
    np.testing.assert_allclose(pixels[0, 0], expected, atol=1e-15)
    np.testing.assert_allclose(pixels[0, 1:], 0.5, atol=1e-15)


def test_first_decorrelated_channel_is_brightness() -> None:
    parametrization = FourierImage()
    parameters = torch.zeros(1, 3, 4, 3, 2)
    parameters[0, 0, 0, 0, 0] = 1.0
    red, green, blue = parametrization.pixels(parameters, (4, 4))[0].amax((1, 2)).logit().tolist()
    assert (green / red, blue / red) == pytest.approx((0.27 / 0.26, 0.27 / 0.26), rel=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PixelImage(std=-1), "std"),
        (lambda: FourierImage(std=float("nan")), "std"),
        (lambda: FourierImage(decay=-1), "decay"),
    ],
)
def test_bad_options(build: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()  # type: ignore[operator]
