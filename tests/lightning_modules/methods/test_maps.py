from __future__ import annotations

import pytest
import torch

from lightning_modules.methods.maps import magnitude, relative_magnitude


@pytest.mark.parametrize("channels", [1, 3])
def test_relative_magnitude_is_the_magnitude_to_the_bit_but_for_a_power_of_two(channels: int) -> None:
    maps = torch.randn(3, channels, 5, 5) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1, 1)
    assert torch.equal(relative_magnitude(maps).frexp().mantissa, magnitude(maps).frexp().mantissa)


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_maps_that_show_nothing_stay(value: float) -> None:
    maps = torch.full((1, 1, 2, 2), value)
    assert torch.equal(relative_magnitude(maps).nan_to_num(-1), magnitude(maps).nan_to_num(-1))
