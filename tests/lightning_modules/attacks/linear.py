"""A network whose attacks can be computed by hand, and how attacked images are compared."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules import Network


class Linear(nn.Module):
    """Logits that are linear in the pixels, weights ``(n_classes, 12)`` for images ``(3, 2, 2)``."""

    input_size = 2

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def by_hand(linear: Network[Linear], image: np.ndarray, label: int, norm: str | int, eps: float) -> np.ndarray:
    """The step away from ``label`` of one image, ``(12,)``.

    The cross-entropy's gradient is a positive number times the mean of the other classes' weights under their own
    softmax, minus the label's weights.
    """
    weight = linear.module.weight.detach().double().numpy()
    others = [k for k in range(len(weight)) if k != label]
    logits = weight[others] @ image.reshape(-1)
    powers = np.exp(logits - logits.max())
    gradient = powers / powers.sum() @ weight[others] - weight[label]
    if norm == "inf":
        return eps * np.sign(gradient)
    if norm == 2:
        return eps * gradient / math.sqrt(sum(g * g for g in gradient))
    k = np.argmax(abs(gradient))
    step = np.zeros(12)
    step[k] = eps * np.sign(gradient[k])
    return step


class Gradients(nn.Module):
    """A model run in channels_last, which keeps its pixels to tell how long their gradients were."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        self.pixels = x
        return self.model(x.contiguous(memory_format=torch.channels_last))

    def length(self) -> Tensor:
        return self.pixels.grad.flatten(1).norm(dim=1)


def differing_signs(ours: Tensor, reference: Tensor, images: Tensor) -> float:
    assert (ours != images).float().mean() > 0.9
    return float(((ours - images).sign() != (reference - images).sign()).float().mean())
