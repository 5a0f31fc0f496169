from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from lightning_modules import InputError
from lightning_modules.synthesis import (
    GaussianBlur,
    GaussianNoise,
    RandomColor,
    RandomRotation,
    RandomScale,
    RandomShift,
    RandomView,
    Transform,
    generators,
    shift,
)
from lightning_modules.synthesis.transforms import gaussian_blur, rotate, scale
from lightning_modules.synthesis.views import resized

ALL = [RandomShift(2), RandomScale(0.8, 1.3), RandomRotation(20), GaussianBlur(0.8), GaussianNoise(0.1)]
ALL += [RandomView(2, 0.7, 1.4, 15), RandomColor()]


def wave(size: int) -> Tensor:
    """A smooth image, ``(1, 1, size, size)``."""
    y, x = torch.meshgrid(*(torch.linspace(0, 3, size, dtype=torch.float64),) * 2, indexing="ij")
    return (torch.sin(x) * torch.cos(2 * y) + 0.3 * x)[None, None]


class TestShift:
    def test_by_hand(self) -> None:
        image = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])[None, None]
        down_right = torch.tensor([[5.0, 4.0, 5.0], [2.0, 1.0, 2.0], [5.0, 4.0, 5.0]])
        assert torch.equal(shift(image, torch.tensor([[1, 1]]))[0, 0], down_right)
        left = torch.tensor([[2.0, 3.0, 2.0], [5.0, 6.0, 5.0], [8.0, 9.0, 8.0]])
        assert torch.equal(shift(image, torch.tensor([[0, -1]]))[0, 0], left)

    def test_is_reflection_padding_and_a_crop(self) -> None:
        images = torch.rand(2, 3, 6, 7)
        padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
        shifted = shift(images, torch.tensor([[3, -4], [-1, 2]]))
        assert torch.equal(shifted[0], padded[0, :, 1:7, 8:15])
        assert torch.equal(shifted[1], padded[1, :, 5:11, 2:9])

    def test_each_move_is_drawn(self) -> None:
        image = torch.arange(49.0).view(1, 1, 7, 7)
        centers = {float(RandomShift(1)(image, generators(["a"], k))[0, 0, 3, 3]) for k in range(200)}
        assert centers == {24.0 + 7 * dy + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)}


def test_scale_about_the_center() -> None:
    image = wave(65)
    larger = scale(image, torch.tensor([1.25], dtype=torch.float64))
    positions = 32 + (np.arange(65) - 32) / 1.25
    expected = ndimage.map_coordinates(image[0, 0].numpy(), np.meshgrid(positions, positions, indexing="ij"), order=1)
    np.testing.assert_allclose(larger[0, 0], expected, atol=1e-12)


def test_rotation_about_the_center() -> None:
    image = wave(65)
    turned = rotate(image, torch.tensor([15.0], dtype=torch.float64))[0, 0].numpy()
    expected = ndimage.rotate(image[0, 0].numpy(), 15, reshape=False, order=1, mode="mirror")
    # Each of the three shears interpolates, so the two agree to the interpolation's error.
    np.testing.assert_allclose(turned[8:-8, 8:-8], expected[8:-8, 8:-8], atol=4e-3)


def test_blur_is_scipys() -> None:
    image = torch.rand(1, 1, 20, 15, dtype=torch.float64)
    expected = ndimage.gaussian_filter(image[0, 0].numpy(), 1.2, mode="mirror", radius=4)
    np.testing.assert_allclose(gaussian_blur(image, 1.2)[0, 0], expected, atol=1e-12)


class TestView:
    def test_the_inside_is_the_image_and_the_outside_one_color(self) -> None:
        """Half as large, at the centre: what SciPy reads there, and a colour of each view's own all around."""
        image = wave(64).expand(1, 3, 64, 64)
        view = RandomView(0, 0.5, 0.5, 0)
        first, again, other = (view(image, generators([key], 1))[0] for key in ("a", "a", "b"))
        assert torch.equal(first, again)
        corner = first[:, :14, :14].flatten(1)
        assert torch.equal(corner, corner[:, :1].expand_as(corner))
        assert not torch.allclose(corner[:, 0], other[:, 0, 0], atol=1e-3)
        expected = torch.nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(first[:, 18:46, 18:46], expected[:, 2:-2, 2:-2], rtol=0, atol=2e-3)

    def test_turned_and_moved_it_is_the_transforms_one_after_the_other(self) -> None:
        image = wave(65)
        drawn = generators(["a"], 3)
        seen = RandomView(5, 1.2, 1.5, 20)(image, drawn)
        numbers = torch.rand(4, generator=generators(["a"], 3)[0], dtype=torch.float64).tolist()
        degrees, factor = 40 * numbers[0] - 20, 1.2 + 0.3 * numbers[1]
        down, right = (10 * number - 5 for number in numbers[2:])
        turned = rotate(image, torch.tensor([degrees], dtype=torch.float64))[0, 0].numpy()
        rows, columns = (32 + (np.arange(65) - 32 - move) / factor for move in (down, right))
        grid = np.meshgrid(rows, columns, indexing="ij")
        expected = ndimage.map_coordinates(turned, grid, order=1)
        inner = (slice(22, 43), slice(22, 43))  # beyond it the one mirrors, the other fills
        np.testing.assert_allclose(seen[0, 0].numpy()[inner], expected[inner], atol=1e-9)


def test_resized_is_torchs_antialiased_resize() -> None:
    images = torch.rand(2, 3, 40, 40, dtype=torch.float64)
    for size in (17, 20, 31, 40):
        expected = torch.nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(resized(images, size), expected, rtol=0, atol=1e-9)


def test_colors_change_by_contrast_and_offset_alone() -> None:
    images = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    seen = RandomColor(0.3, 0.1)(images, generators(["a"], 1))
    slope = (seen[0, :, 0, 1] - seen[0, :, 0, 0]) / (images[0, :, 0, 1] - images[0, :, 0, 0])
    assert torch.allclose(slope, slope[:1].expand(3))
    assert 0.74 < float(slope[0]) < 1.35
    offsets = (seen - 0.5 - (images - 0.5) * slope[0]).flatten(2)
    assert torch.allclose(offsets, offsets[..., :1].expand_as(offsets))
    assert offsets.abs().max() <= 0.1


@pytest.mark.parametrize("transform", ALL, ids=repr)
class TestAll:
    def test_gradient(self, transform: Transform) -> None:
        images = torch.rand(2, 1, 5, 6, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: transform(x, generators(["a", "b"], 1)), images)

    def test_does_not_depend_on_the_batch(self, transform: Transform) -> None:
        images = torch.rand(3, 3, 8, 9)
        together = transform(images, generators(["a", "b", "c"], 7))
        for position, key in ((2, "c"), (0, "a")):
            alone = transform(images[position : position + 1], generators([key], 7))
            # A product of matrices may be rounded otherwise in a batch of another size.
            torch.testing.assert_close(alone[0], together[position], rtol=0, atol=1e-6)


@pytest.mark.parametrize("transform", ALL[:4], ids=repr)
def test_flat_images_stay_flat(transform: Transform) -> None:
    flat = torch.full((1, 3, 6, 6), 0.25)
    torch.testing.assert_close(transform(flat, generators(["a"], 0)), flat)


def test_noise_has_its_deviation_and_no_mean() -> None:
    noise = GaussianNoise(0.1)(torch.zeros(1, 3, 100, 100, dtype=torch.float64), generators(["a"], 0))
    assert noise.mean() == pytest.approx(0, abs=5 * 0.1 / 30_000**0.5)
    assert noise.std() == pytest.approx(0.1, rel=5 / 60_000**0.5)


@pytest.mark.parametrize("transform", [*ALL[:3], *ALL[4:]], ids=repr)
def test_step_and_key_decide(transform: Transform) -> None:
    image = torch.rand(1, 3, 9, 9)
    first, again, later, other = (
        transform(image, generators([key], step)) for key, step in (("a", 1), ("a", 1), ("a", 2), ("b", 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    "transform", [RandomShift(0), RandomScale(1, 1), RandomRotation(0), GaussianBlur(0), GaussianNoise(0)], ids=repr
)
def test_degenerate_settings_change_nothing(transform: Transform) -> None:
    images = torch.rand(2, 3, 6, 7)
    assert torch.equal(transform(images, generators(["a", "b"], 0)), images)
    for changed in (RandomView(0, 1, 1, 0), RandomColor(0, 0)):
        torch.testing.assert_close(changed(images, generators(["a", "b"], 0)), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RandomShift, (-1,), "RandomShift.pixels must be at least 0, got -1"),
        (RandomScale, (0, 1), "0 < low <= high, got 0 and 1"),
        (RandomScale, (1.2, 1.1), "0 < low <= high"),
        (RandomRotation, (100,), r"degrees must lie in \[0, 90\], got 100"),
        (GaussianBlur, (-1,), "sigma must be at least 0, got -1"),
        (GaussianNoise, (-0.1,), r"std must be at least 0, got -0\.1"),
        (RandomView, (-1,), "RandomView needs pixels of at least 0, .*got -1, 0.6, 1.7 and 20"),
        (RandomColor, (0.3, -1), "contrast and offset of at least 0, got 0.3 and -1"),
    ],
)
def test_bad_options(kind: type, options: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(*options)
