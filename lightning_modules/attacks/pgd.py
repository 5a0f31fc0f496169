"""Projected gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_modules.attacks.base import at_even_odds, check_norm
from lightning_modules.attacks.cleverhans_adapter import projected_steps
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.networks.network import Network


class PGD(SeededAttack):
    """Projected gradient descent: steps of the fast gradient method, each projected into the budget; by cleverhans.

    It starts at the image itself, as Kurakin et al. do, and then draws no random numbers; or, as Madry et al. do, at a
    random point of the budget, which follows from the seed and the path of the image.

    Args:
        norm: The norm that the budget limits: inf or 2.
        targeted: Whether the steps lead to the class, not away from it.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass, for every budget.
        relative_step: Length of a step as a fraction of the budget, in (0, 1].
        unsaturate: As in :class:`FGSM`.
        random_start: Whether it starts at a random point.
        seed: Seed of that point.

    Reference: Kurakin, Goodfellow & Bengio, "Adversarial Examples in the Physical World", ICLR 2017 workshop; Madry et
    al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Example:
        >>> import torch
        >>> from lightning_modules import load_vgg16
        >>> images = torch.full((1, 3, 112, 112), 0.5)
        >>> adversarial = PGD(norm=2, n_steps=2)(load_vgg16("shapes"), images, torch.tensor([3]), eps=1.0)
        >>> float((adversarial - images).norm()) <= 1.0001
        True
    """

    meaning = "An attack in many small steps."

    follows_gradient = True

    def __init__(
        self,
        norm: Literal["inf", 2] = "inf",
        targeted: bool = False,
        n_steps: int = 10,
        relative_step: float = 0.25,
        unsaturate: bool = False,
        random_start: bool = False,
        seed: int = 0,
    ) -> None:
        check_norm(norm, ("inf", 2))
        check_at_least_one(n_steps=n_steps)
        if not 0 < relative_step <= 1:
            raise InputError(f"relative_step must lie in (0, 1], got {relative_step}.")
        self.norm: Literal["inf", 2] = norm
        self.targeted = targeted
        self.n_steps = n_steps
        self.relative_step = relative_step
        self.unsaturate = unsaturate
        self.random_start = self.is_random = random_start
        self.seed = seed

    def n_passes(self) -> int:
        return self.n_steps

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        return projected_steps(
            network,
            images,
            target,
            eps,
            logits_of=lambda logits: at_even_odds(logits, target) if self.unsaturate else logits,
            step=eps * self.relative_step,
            n_steps=self.n_steps,
            norm=self.norm,
            targeted=self.targeted,
            seeds=seeds if self.random_start else None,
        )
