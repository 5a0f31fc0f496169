"""Random noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lightning_modules.attacks.base import CLIP_MAX, CLIP_MIN
from lightning_modules.attacks.cleverhans_adapter import noised, steepest_direction
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers, seed_from


class Noise(SeededAttack):
    """Uniform noise up to the budget, in the norm ∞; by cleverhans. It asks the network nothing.

    It is what other attacks are to be compared with. Where it fools a network as often as FGSM does, and that is often,
    the gradient that FGSM follows is worth nothing. Where both fool hardly any image, nothing follows.

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

    meaning = "Random noise of the same size: what an attack is to be compared with."

    caveat = "Noise asks the network nothing: that it fools few images, or none, says nothing of an adversary."

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        return noised(images, eps, seeds)


def random_steps(
    images: Tensor, eps: Sequence[float], norm: Literal["inf", 2, 1], keys: Sequence[str], seed: int = 0
) -> Iterator[Tensor]:
    """What FGSM makes of images under each budget if its gradient is random, normally distributed: ``(N, 3, H, W)``.

    So an image moves as far as under the attack, but nowhere in particular.

    Args:
        images: Pixels in [0, 1].
        eps: The budgets.
        norm: The norm that they limit.
        keys: Of each image, from which its random numbers follow.
        seed: As does this.
    """
    numbers = RandomNumbers([seed_from(seed, key, "random step") for key in keys], images.device)
    direction = steepest_direction(numbers.normal(slice(0, 1), images.shape[1:])[0], norm).to(images.dtype)
    for value in eps:
        yield (images + value * direction).clamp(CLIP_MIN, CLIP_MAX)
