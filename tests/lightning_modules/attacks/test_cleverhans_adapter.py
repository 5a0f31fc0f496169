"""Directions: cleverhans' own, also of gradients that it cannot take as they are."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_modules.attacks.cleverhans_adapter import steepest_direction


@pytest.mark.parametrize("exponent", [-149, -140, -126, -60, 0, 60, 127])
@pytest.mark.parametrize("norm", ["inf", 2, 1])
def test_a_power_of_two_changes_no_direction(exponent: int, norm: str | int) -> None:
    """Down to float32's least number, which has no other multiple than whole ones."""
    gradient = torch.tensor([1.0, -1, 0, 1]).view(1, 1, 2, 2).ldexp(torch.tensor(exponent // 2))
    gradient = gradient.ldexp(torch.tensor(exponent - exponent // 2))
    assert float(gradient.max()) == math.ldexp(1, exponent)
    value = {"inf": 1.0, 2: 1 / math.sqrt(3), 1: 1 / 3}[norm]
    expected = torch.tensor([value, -value, 0, value]).view(1, 1, 2, 2)
    torch.testing.assert_close(steepest_direction(gradient, norm), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", ["inf", 2, 1])
def test_no_gradient_has_no_direction(norm: str | int) -> None:
    gradient = torch.zeros(2, 3, 2, 2)
    gradient[1, 0, 0, 0] = -3
    direction = steepest_direction(gradient, norm)
    assert not direction[0].any()
    assert direction[1, 0, 0, 0] == -1


@pytest.mark.parametrize("norm", ["inf", 2, 1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_has_a_direction_of_nan(norm: str | int, value: float) -> None:
    """cleverhans takes the sign of NaN, 0, or fails for the whole batch."""
    gradient = torch.randn(3, 3, 2, 2)
    gradient[1, 0, 0, 0] = value
    direction = steepest_direction(gradient, norm)
    assert direction[1].isnan().all()
    torch.testing.assert_close(direction[::2], steepest_direction(gradient[::2], norm), rtol=0, atol=0)


def test_many_ties_share_the_direction_of_norm_1() -> None:
    """Ten times a tenth is not one in float32, which cleverhans asserts."""
    gradient = torch.zeros(1, 1, 5, 5)
    gradient.view(-1)[:10] = torch.tensor([1.0, -1] * 5)
    direction = steepest_direction(gradient, 1)
    assert direction.flatten()[:10].tolist() == pytest.approx([0.1, -0.1] * 5)
    assert not direction.flatten()[10:].any()
