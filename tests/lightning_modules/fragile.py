"""A network that gives no numbers for some images, and batches of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from datamodules.batch import Original

NAMES = ("ape", "bee", "cat")


class Fragile(nn.Module):
    """Logits of three classes: NaN of images brighter than 0.9 on average, infinite of those brighter than 0.8.

    Where the first pixel is 0.25 in its first channel, the logits are finite and their gradient is NaN.
    """

    class_names = NAMES
    input_size = 32
    target_layer = "body"
    mean = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, len(NAMES))

    def forward(self, x: Tensor) -> Tensor:
        brightness = x.mean((1, 2, 3))[:, None]
        # The derivative of |y|^(1/2) at 0 is infinite, and infinity times 0 is NaN.
        logits = self.head(self.body(x).mean((2, 3))) + 0 * (x[:, :1, 0, 0] - 0.25).abs().sqrt()
        return logits.where(brightness <= 0.8, torch.inf).where(brightness <= 0.9, torch.nan)


NETWORK = f"{Fragile.__module__}.Fragile"
"""As the option ``network``, with ``weights`` random."""

FRAGILE: dict[str, Any] = {"network": NETWORK, "weights": "random"}
"""Options of a module."""


def batch_of(images: Tensor, labels: list[int] | None = None) -> dict[str, Any]:
    """A batch of images named "0", "1", ..., each with a figure to be drawn."""
    n, _, height, width = images.shape
    pixels = (images * 255).byte().permute(0, 2, 3, 1).numpy()
    return {
        "image": images,
        "label": torch.tensor(labels or [0] * n),
        "index": torch.arange(n),
        "path": [str(i) for i in range(n)],
        "boxes": torch.tensor([[1.0, 1.0, 9.0, 9.0]] * n),
        "box_labels": torch.zeros(n, dtype=torch.long),
        "n_boxes": torch.ones(n, dtype=torch.long),
        "box_error": [None] * n,
        "file_columns": [{"exif_orientation": 1, "note": None}] * n,
        "original": [Original(pixels[i], (0, 0, width, height)) for i in range(n)],
        "failed": [],
    }


def dim_images(n: int) -> Tensor:
    """Images ``(n, 3, 32, 32)`` of which the network gives numbers."""
    return 0.6 * torch.rand(n, 3, 32, 32)
