"""Attacks that draw random numbers: for each image its own, so that it is attacked in the same way in any batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from lightning_modules.attacks.base import Attack, checked, float32_gradients
from lightning_modules.gradients.forward_pass import ForwardPass, keys_of
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import seed_from


class SeededAttack(Attack):
    """An attack of which the random numbers follow from ``seed`` and the key of each image: in a run, its path.

    Under all budgets of a sweep they are the same. Without a key it is a hash of the pixels.

    Attributes:
        seed: Of the random numbers.
        is_random: Whether it draws any.
    """

    seed: int = 0
    is_random: bool = True

    @abstractmethod
    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        """What a call gives, with a seed for each image, if it draws; not to read anything of the images."""

    def __call__(self, network: Network, images: Tensor, target: Tensor, eps: float) -> Tensor:
        network, images, target, eps = checked(self, network, images, target, eps)
        with trusted(), float32_gradients(images.device):
            return self._attacked(network, images, target, eps, keys_of(images) if self.is_random else [])

    def of_pass(self, forward_pass: ForwardPass, images: Tensor, target: Tensor, eps: float) -> Tensor:
        keys = forward_pass.keys if self.is_random else []
        return self._attacked(forward_pass.network, images, target, eps, keys)

    def _attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, keys: Sequence[str]) -> Tensor:
        # Copies, since autograd cannot keep a tensor that was made under inference mode.
        seeds = [seed_from(self.seed, key) for key in keys]
        return self.attacked(network, images.detach().clone(), target.clone(), eps, seeds).detach()
