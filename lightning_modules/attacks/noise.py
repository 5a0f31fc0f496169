"""Random noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_modules.attacks.base import CLIP_MAX, CLIP_MIN
from lightning_modules.attacks.cleverhans_adapter import noised
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.networks.network import Network


class Noise(SeededAttack):
    """Uniform noise up to the budget, in the norm ∞; by cleverhans. It asks the network nothing.

    It is what other attacks are to be compared with. Where it fools a network as often as FGSM does, the gradient that
    FGSM follows is worth nothing.

    Args:
        seed: Seed of the noise.

    Reference: Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML 2018.

    Example:
        >>> import torch
        >>> from lightning_modules import load_vgg16
        >>> images = torch.full((1, 3, 112, 112), 0.5)
        >>> noisy = Noise()(load_vgg16("shapes"), images, torch.tensor([3]), eps=0.1)
        >>> round(float((noisy - images).abs().max()), 3)
        0.1
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        return noised(images, eps, seeds, (CLIP_MIN, CLIP_MAX))
