"""Sparse descent within a budget of the norm 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_modules.attacks.cleverhans_adapter import sparse_steps
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.networks.network import Network


class SparseL1Descent(SeededAttack):
    """Projected steps in the norm 1, each along the signs of the few largest entries of the gradient; by cleverhans.

    FGSM's step in the norm 1 changes a single pixel; this one spreads the budget over the strongest percent of them,
    step by step. cleverhans' own fails where the gradient lies in channels_last, as that of most networks does here.

    Args:
        targeted: Whether the steps lead to the class, not away from it.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass, for every budget.
        relative_step: Length of a step as a fraction of the budget, in (0, 1].
        sparsity: Percent of the gradient's entries, the weakest ones, that a step leaves out; in (0, 100).

    Raises:
        InputError: If an option is out of its range.

    Reference: Tramèr & Boneh, "Adversarial Training and Robustness for Multiple Perturbations", NeurIPS 2019.
    """

    meaning = "An attack that moves few pixels, each by much."

    norm = 1
    follows_gradient = True
    is_random = False

    def __init__(
        self, targeted: bool = False, n_steps: int = 20, relative_step: float = 0.1, sparsity: float = 99.0
    ) -> None:
        check_at_least_one(n_steps=n_steps)
        if not 0 < relative_step <= 1:
            raise InputError(f"relative_step must lie in (0, 1], got {relative_step}.")
        if not 0 < sparsity < 100:
            raise InputError(f"sparsity must lie in (0, 100), got {sparsity}.")
        self.targeted = targeted
        self.n_steps = n_steps
        self.relative_step = relative_step
        self.sparsity = sparsity

    def n_passes(self) -> int:
        return self.n_steps

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        return sparse_steps(
            network,
            images.contiguous(),
            target,
            eps,
            step=eps * self.relative_step,
            n_steps=self.n_steps,
            sparsity=self.sparsity,
            targeted=self.targeted,
        )
