from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.attacks.distances import moved


def images_and_moved(dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
    """Three images, and two ways in which they were moved."""
    images = torch.rand(3, 3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return images, [(images + 0.3).clamp(0, 1), images.where(images > 0.2, images - 0.1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_all_is_as_numpy_computes_it_in_float64(dtype: torch.dtype) -> None:
    images, adversarial = images_and_moved(dtype)
    before = [of.clone() for of in (images, *adversarial)]
    for attacked, found in zip(adversarial, moved(images, adversarial, 1.0), strict=True):
        delta = (attacked.double().numpy() - images.double().numpy()).reshape(3, -1)
        np.testing.assert_array_equal(found.linf, np.abs(delta).max(1))
        np.testing.assert_allclose(found.l2, np.linalg.norm(delta, axis=1), rtol=1e-14)
        np.testing.assert_allclose(found.distance(1), np.abs(delta).sum(1), rtol=1e-14)
        np.testing.assert_array_equal(found.n_moved, (delta != 0).sum(1))
        np.testing.assert_array_equal(found.lowest, attacked.flatten(1).amin(1))
        np.testing.assert_array_equal(found.highest, attacked.flatten(1).amax(1))
        assert torch.equal(found.distance(2), found.l2)
        assert torch.equal(found.distance(math.inf), found.linf)
    assert all(torch.equal(of, as_it_was) for of, as_it_was in zip((images, *adversarial), before))


@pytest.mark.parametrize("norm", [math.inf, 2.0, 1.0])
def test_whatever_lies_how_in_the_memory(norm: float) -> None:
    """Of one order, of another, of both mixed: sums may differ by their roundings, all else by nothing."""
    images, adversarial = images_and_moved()
    last = {"memory_format": torch.channels_last}
    expected = moved(images, adversarial, norm)
    for before in (images, images.contiguous(**last)):
        wide = torch.zeros(3, 3, 7, 10)[..., ::2].copy_(adversarial[1])
        for after in (adversarial, [adversarial[0].contiguous(**last), wide]):
            for found, wanted in zip(moved(before, after, norm), expected, strict=True):
                for name, of in found._asdict().items():
                    torch.testing.assert_close(of, getattr(wanted, name), rtol=1e-14, atol=0)
                assert torch.equal(found.linf, wanted.linf)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_an_image_that_is_not_finite_harms_no_other(value: float) -> None:
    images, adversarial = images_and_moved()
    (expected,) = moved(images, adversarial[:1], 1.0)
    adversarial[0][1, 2, 6, 4] = value
    (found,) = moved(images, adversarial[:1], 1.0)
    for of, wanted in zip(found, expected, strict=True):
        assert torch.equal(of[::2], wanted[::2])
    assert found.linf[1].isnan() if math.isnan(value) else found.linf[1] == math.inf
    assert not found.l2[1].isfinite()


def test_a_dtype_of_few_bits() -> None:
    images, adversarial = images_and_moved(torch.bfloat16)
    (found, _) = moved(images, adversarial, math.inf)
    assert torch.equal(found.linf, (adversarial[0].double() - images.double()).abs().flatten(1).amax(1))
