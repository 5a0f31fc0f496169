"""Simultaneous perturbation stochastic approximation: an attack without gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_modules.attacks.base import check_norm
from lightning_modules.attacks.cleverhans_adapter import spsa_steps
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.networks.network import Network


class SPSA(SeededAttack):
    """SPSA: steps of Adam along a gradient that is estimated from the logits of noisy images alone; by cleverhans.

    No gradient of the network is taken. Where it fools a network that FGSM and PGD do not, the network hides its
    gradients and only looks robust. Where it fools nothing, nothing follows: a gradient that is estimated from few
    samples hardly leads anywhere. The paper takes thousands of them a step.

    It begins at a random point of the budget, and makes the margin between the class and the strongest other one grow
    or shrink.

    A step costs a forward pass of ``2 * n_samples`` images and one more, for each image by itself and for every budget.
    cleverhans reads the loss after each step, so a GPU is waited for.

    Args:
        norm: The norm that the budget limits: inf or 2.
        targeted: Whether the steps lead to the class, not away from it.
        n_steps: Number of steps, at least 1.
        n_samples: Directions, each tried forwards and backwards, from which a gradient is estimated; at least 1.
        learning_rate: Of Adam, in pixel units, above 0.
        delta: How far the noisy images lie from the image, in pixel units, above 0.
        seed: Seed of all that is drawn.

    Raises:
        InputError: If an option is out of its range.

    Reference: Uesato et al., "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks", ICML 2018.
    """

    meaning = "An attack that only looks at the network's answers, not into it."

    @property
    def caveat(self) -> str:  # type: ignore[override]
        return (
            f"SPSA estimates its gradient from {2 * self.n_samples:,} noisy images a step (n_samples), in "
            f"{self.n_steps:,} steps: that it fools few images, or none, says little while more of both fool more. "
            "Its paper takes thousands of images a step."
        )

    def __init__(
        self,
        norm: Literal["inf", 2] = "inf",
        targeted: bool = False,
        n_steps: int = 100,
        n_samples: int = 128,
        learning_rate: float = 0.01,
        delta: float = 0.01,
        seed: int = 0,
    ) -> None:
        check_norm(norm, ("inf", 2))
        check_at_least_one(n_steps=n_steps, n_samples=n_samples)
        for name, size in (("learning_rate", learning_rate), ("delta", delta)):
            if not size > 0:
                raise InputError(f"{name} must be above 0, got {size}.")
        self.norm: Literal["inf", 2] = norm
        self.targeted = targeted
        self.n_steps = n_steps
        self.n_samples = n_samples
        self.learning_rate = learning_rate
        self.delta = delta
        self.seed = seed

    def n_passes(self) -> int:
        return self.n_steps * (2 * self.n_samples + 1)

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        return spsa_steps(
            network,
            images,
            target,
            eps,
            seeds,
            norm=self.norm,
            targeted=self.targeted,
            n_steps=self.n_steps,
            spsa_samples=self.n_samples,
            learning_rate=self.learning_rate,
            delta=self.delta,
        )
