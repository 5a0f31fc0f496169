"""A small network in float64, and a pass of two images, for scores that need many passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules import ForwardPass, Network, as_network
from tests.references import full_pass

KEYS = ["a.png", "b.png"]


class Small(nn.Module):
    """Three classes of images of any size."""

    target_layer = "features.1"

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 5 * self.head(self.features(x).mean((2, 3)))


def small_network(dtype: torch.dtype = torch.float64, side: int = 16) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = Small().eval().to(dtype)
    return as_network(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), input_size=side)


def small_pass(dtype: torch.dtype = torch.float64, side: int = 16) -> ForwardPass:
    """Of two images, each explained for another class."""
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return full_pass(small_network(dtype, side), images.to(dtype), torch.tensor([2, 0]), keys=KEYS)
