from __future__ import annotations

import pytest
import torch

from lightning_modules.gradients.scaling import scaled_near_one


def test_scaling_keeps_each_bit() -> None:
    gradient = torch.randn(4, 3, 5, 5) * torch.tensor([1e-30, 1e-6, 1.0, 1e20]).view(4, 1, 1, 1)
    scaled = scaled_near_one(gradient)
    assert ((scaled.abs().amax((1, 2, 3)) >= 0.5) & (scaled.abs().amax((1, 2, 3)) < 1)).all()
    assert torch.equal(scaled.frexp().mantissa, gradient.frexp().mantissa)


@pytest.mark.parametrize("value", [1e-300, 1e300])
def test_float64(value: float) -> None:
    values = value * torch.tensor([[0.75, -0.5, 0.0]], dtype=torch.float64)
    scaled = scaled_near_one(values)
    assert torch.equal(scaled.frexp().mantissa, values.frexp().mantissa)
    assert 0.5 <= scaled.max() < 1


def test_nothing_and_what_is_not_finite_stay() -> None:
    values = torch.tensor([[0.0, 0.0], [torch.nan, 8.0], [torch.inf, 8.0]])
    assert torch.equal(scaled_near_one(values).nan_to_num(-1), values.nan_to_num(-1))
