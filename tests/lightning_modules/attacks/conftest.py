"""Networks and images to attack."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import Network, as_network
from tests.lightning_modules.attacks.linear import Linear


@pytest.fixture
def linear() -> Network[Linear]:
    return as_network(Linear(torch.randn(4, 12)))


@pytest.fixture
def images() -> Tensor:
    """Images of the linear model, far enough from 0 and 1 that nothing is clipped."""
    return 0.3 + 0.4 * torch.rand(5, 3, 2, 2)


@pytest.fixture(scope="module")
def big_images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(4, 3, 8, 8, generator=generator)
    return F.interpolate(noise, (64, 64), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def labels(shapes_network: Network, big_images: Tensor) -> Tensor:
    """The predicted classes: an attack that leads away from them has something to do."""
    return shapes_network(big_images).argmax(1)
