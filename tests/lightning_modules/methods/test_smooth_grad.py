"""SmoothGrad's noise, statistics and chunks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import (
    InputError,
    Network,
    Saliency,
    SmoothGrad,
)
from lightning_modules.methods.variants import noise
from lightning_modules.random_numbers import RandomNumbers
from tests.references import full_pass, relative_error


class TestSmoothGrad:
    def test_without_noise_is_the_gradient(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        torch.testing.assert_close(SmoothGrad(n_samples=3, noise_level=0)(forward_pass), Saliency()(forward_pass))

    def test_statistics(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        signed, magnitudes, squares = (
            SmoothGrad(n_samples=1, statistic=statistic)(forward_pass)
            for statistic in ("signed", "magnitude", "squared")
        )
        torch.testing.assert_close(magnitudes, signed.abs())
        torch.testing.assert_close(squares, signed.square())

    def test_noise_has_the_level_asked_for(self) -> None:
        """On a network whose gradient is its input, the map of one sample is the noisy image."""

        class Square(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.stack([x.square().sum((1, 2, 3)) / 2, x.sum((1, 2, 3))], 1)

        images = torch.rand(2, 3, 64, 64)
        images[1] *= 0.2
        forward_pass = full_pass(Square().eval(), images, 0)
        noise = SmoothGrad(n_samples=1, noise_level=0.3)(forward_pass) - images
        torch.testing.assert_close(noise.std((1, 2, 3)), torch.tensor([0.3, 0.06]), rtol=0.03, atol=0)
        clipped = SmoothGrad(n_samples=1, noise_level=0.3, clip=True)(forward_pass)
        assert clipped.min() == 0
        assert clipped.max() == 1

    def test_chunks_do_not_matter(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(3, 3, 112, 112))
        maps = [SmoothGrad(n_samples=5, max_batch=k)(forward_pass) for k in (None, 1, 2, 7, 100)]
        for other in maps[1:]:
            assert relative_error(other, maps[0]) < 1e-5

    def test_seed_decides(self, shapes_network: Network) -> None:
        images = torch.rand(2, 3, 112, 112)
        first = SmoothGrad(n_samples=2)(full_pass(shapes_network, images))
        assert torch.equal(first, SmoothGrad(n_samples=2)(full_pass(shapes_network, images)))
        assert relative_error(SmoothGrad(n_samples=2, seed=1)(full_pass(shapes_network, images)), first) > 0.01

    def test_noise_in_float64_is_that_of_float32(self) -> None:
        images = torch.rand(2, 3, 8, 8)
        numbers = RandomNumbers([0, 1], images.device)
        drawn = [noise(numbers, slice(0, 3), of) for of in (images, images.double())]
        assert drawn[0].shape == (3, 2, 3, 8, 8)
        assert drawn[1].dtype == torch.float64
        assert torch.equal(drawn[0].double(), drawn[1])

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"n_samples": 0}, "n_samples"), ({"noise_level": -0.1}, "noise_level"), ({"max_batch": 0}, "max_batch")],
    )
    def test_bad_options(self, options: dict, message: str) -> None:
        with pytest.raises(InputError, match=message):
            SmoothGrad(**options)
