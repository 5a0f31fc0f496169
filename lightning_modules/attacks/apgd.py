"""Auto-PGD: projected steps whose length finds itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.attacks.base import CLIP_MAX, CLIP_MIN, check_norm
from lightning_modules.attacks.seeded import SeededAttack
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.gradients.scaling import largest_magnitude, scaled_near_one
from lightning_modules.host import replaced
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers

_TINY = 1e-12


class APGD(SeededAttack):
    """Auto-PGD: steps with momentum from a random point of the budget, halved in length where they no longer help.

    No step length is chosen: it begins at twice the budget, and at checkpoints, which follow each other faster and
    faster, it is halved, and the search goes on from the best point, if fewer than three quarters of the steps since
    the last one raised the loss, or none raised the best one.

    The image that it gives is the last one that fooled the network on the way or, where none did, the last of the way.
    (The authors' code and torchattacks' hand those back as they were.) Otherwise it equals torchattacks' from the same
    start, in float64. One case is open to rounding: once the class is the third of the logits, dlr away from it is 1
    whatever the pixels are, its gradient is rounding alone, and a step of norm 2 gives that rounding full length. The
    image is fooled by then.

    Args:
        norm: The norm that the budget limits: inf or 2.
        targeted: Whether it leads to the class, not away from it.
        loss: What it climbs: ce, the cross-entropy, or dlr, the difference of logits ratio, which does not vanish where
            the network is sure; its classes are 3 or more, where it leads to one 4 or more.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass, for every budget.
        n_targets: How many classes it is led to in turn, the most probable of the clean image first, until one of them
            fools the network; as many steps each. 0 = it leads away from its own class. AutoAttack has ce with 0, and
            dlr with 9.
        seed: Seed of the points where it starts.

    Raises:
        InputError: If an option is out of its range.

    Reference: Croce & Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
    Attacks", ICML 2020.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> images = torch.full((1, 3, 112, 112), 0.5)
        >>> adversarial = APGD(n_steps=2)(load_vgg16("shapes"), images, torch.tensor([3]), eps=4 / 255)
        >>> round(float((adversarial - images).abs().max()) * 255, 3)
        4.0
    """

    meaning = "An attack in many steps, which become shorter where they no longer help."

    def __init__(
        self,
        norm: Literal["inf", 2] = "inf",
        targeted: bool = False,
        loss: Literal["ce", "dlr"] = "ce",
        n_steps: int = 100,
        n_targets: int = 0,
        seed: int = 0,
    ) -> None:
        check_norm(norm, ("inf", 2))
        check_at_least_one(n_steps=n_steps)
        if loss not in ("ce", "dlr"):
            raise InputError(f"loss must be ce or dlr, got {loss!r}.")
        if n_targets < 0 or (n_targets and targeted):
            raise InputError(
                f"n_targets must be at least 0 and, where the attack is targeted, 0: it leads to that class alone. Got "
                f"{n_targets}."
            )
        self.norm: Literal["inf", 2] = norm
        self.targeted = targeted
        self.loss: Literal["ce", "dlr"] = loss
        self.n_steps = n_steps
        self.n_targets = n_targets
        self.seed = seed

    def n_passes(self) -> int:
        return max(1, self.n_targets) * (self.n_steps + 1) + (self.targeted or self.n_targets > 0)

    def attacked(self, network: Network, images: Tensor, target: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
        n_least = 4 if self.targeted or self.n_targets else 3
        if self.loss == "dlr" and len(network.class_names) < n_least:
            raise InputError(
                f"{network.name} has {len(network.class_names)} classes, and this dlr loss takes {n_least}: set "
                "model.attack.loss to ce."
            )
        numbers = RandomNumbers(seeds, images.device)
        if not self.targeted and not self.n_targets:
            return self._run(network, images, self._start(images, eps, numbers, 0), eps, target, None)[0]
        logits = ForwardPass(network, images).logits
        if self.targeted:
            return self._run(network, images, self._start(images, eps, numbers, 0), eps, logits.argmax(1), target)[0]
        adversarial, left = images.clone(), torch.arange(len(images), device=images.device)
        others = logits.scatter(1, target[:, None], torch.inf).argsort(1, descending=True)[:, 1 : 1 + self.n_targets]
        for k, to in enumerate(others.T):
            start = self._start(images, eps, numbers, k)
            found, is_fooled = self._run(network, images[left], start[left], eps, target[left], to[left])
            adversarial[left] = found
            left = left[~is_fooled]  # which waits for a GPU once in so many passes, and spares most of them
            if not len(left):
                break
        return adversarial

    def _start(self, images: Tensor, eps: float, numbers: RandomNumbers, k: int) -> Tensor:
        """A random point at the border of the budget, the k-th."""
        draw = RandomNumbers.normal if self.norm == 2 else RandomNumbers.uniform
        drawn = draw(numbers, slice(k, k + 1), images.shape[1:])[0].to(images.dtype)
        if self.norm == 2:
            direction = _unit(drawn)
        else:
            direction = 2 * drawn - 1
            direction = direction / direction.abs().amax((1, 2, 3), keepdim=True)
        return (images + eps * direction).clamp(CLIP_MIN, CLIP_MAX)

    def _run(
        self, network: Network, images: Tensor, x: Tensor, eps: float, own: Tensor, to: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Climbs from points ``x``, ``(N, 3, H, W)``.

        Args:
            network: From pixels to logits.
            images: The clean images.
            x: Where it starts.
            eps: The budget.
            own: The class of each image, ``(N,)``.
            to: The class that it is led to; None = away from its own.

        Returns:
            The images, and which of them fool the network, bool ``(N,)``.
        """

        def looked_at(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Of points: the loss ``(N,)``, its gradient, and whether they fool the network ``(N,)``."""
            forward_pass = ForwardPass(network, x, needs=Needs(loss_gradient=True))
            prediction = forward_pass.logits.argmax(1)
            fools = prediction == to if self.targeted and to is not None else prediction != own
            gradient = forward_pass.loss_gradient(lambda logits: self._loss(logits, own, to).sum())
            return self._loss(forward_pass.logits, own, to), gradient, fools

        best, fooling, before = x, x, x
        loss, gradient, is_fooled = looked_at(x)
        is_finite = largest_magnitude(gradient).isfinite().flatten()
        best_loss, best_gradient = loss, gradient
        step = torch.full_like(loss, 2 * eps).view(-1, 1, 1, 1)
        checkpoint, interval = _Checkpoint(best_loss), max(int(0.22 * self.n_steps), 1)
        next_check = interval
        # The authors compare the loss of the first step with 0.
        previous = torch.zeros_like(loss)
        for k in range(1, self.n_steps + 1):
            direct = self._projected(x + step * self._direction(gradient), images, eps)
            weight = 0.75 if k > 1 else 1.0
            along = x + (direct - x) * weight + (x - before) * (1 - weight)
            before, x = x, self._projected(along, images, eps)
            loss, gradient, fools = looked_at(x)
            is_finite &= largest_magnitude(gradient).isfinite().flatten()
            fooling, is_fooled = _where(fools, x, fooling), is_fooled | fools
            is_better = loss > best_loss
            best, best_gradient = _where(is_better, x, best), _where(is_better, gradient, best_gradient)
            best_loss = torch.where(is_better, loss, best_loss)
            checkpoint.n_raised += loss > previous
            previous = loss
            if k == next_check and k < self.n_steps:
                is_halved = checkpoint.passed(best_loss, interval)
                step = _where(is_halved, step / 2, step)
                x, gradient = _where(is_halved, best, x), _where(is_halved, best_gradient, gradient)
                interval = max(interval - max(int(0.03 * self.n_steps), 1), max(int(0.06 * self.n_steps), 1))
                next_check += interval
        return replaced(_where(is_fooled, fooling, x), ~is_finite, torch.nan), is_fooled

    def _loss(self, logits: Tensor, own: Tensor, to: Tensor | None) -> Tensor:
        """What each image is to have more of, ``(N,)``."""
        if self.loss == "ce":
            classes, sign = (own, 1) if to is None else (to, -1)
            return sign * F.cross_entropy(logits, classes, reduction="none")
        ordered = logits.sort(1).values
        mine = logits.gather(1, own[:, None])[:, 0]
        if to is not None:
            width = ordered[:, -1] - 0.5 * ordered[:, -3] - 0.5 * ordered[:, -4]
            return -(mine - logits.gather(1, to[:, None])[:, 0]) / (width + _TINY)
        other = torch.where(logits.argmax(1) == own, ordered[:, -2], ordered[:, -1])
        return -(mine - other) / (ordered[:, -1] - ordered[:, -3] + _TINY)

    def _direction(self, gradient: Tensor) -> Tensor:
        """The steepest one, of length 1; zero where the gradient is."""
        return _unit(scaled_near_one(gradient)) if self.norm == 2 else gradient.sign()

    def _projected(self, x: Tensor, images: Tensor, eps: float) -> Tensor:
        """The nearest points within the budget, clamped to the range of pixels."""
        if self.norm == 2:
            delta = x - images
            x = images + _unit(delta) * _length(delta).clamp(max=eps)
        else:
            x = torch.min(torch.max(x, images - eps), images + eps)
        return x.clamp(CLIP_MIN, CLIP_MAX)


class _Checkpoint:
    """Whether the steps since the last checkpoint helped each of N images.

    Args:
        best_loss: At the start, ``(N,)``.

    Attributes:
        n_raised: How many steps raised the loss since, ``(N,)``.
    """

    def __init__(self, best_loss: Tensor) -> None:
        self.n_raised = torch.zeros_like(best_loss)
        self._best_loss = best_loss
        self._was_halved = torch.ones_like(best_loss, dtype=torch.bool)

    def passed(self, best_loss: Tensor, n_steps: int) -> Tensor:
        """Of which images the step is to be halved, bool ``(N,)``, after so many steps; begins anew."""
        stands_still = ~self._was_halved & (self._best_loss >= best_loss)
        self._was_halved = (self.n_raised <= 0.75 * n_steps) | stands_still
        self._best_loss = best_loss
        self.n_raised = torch.zeros_like(best_loss)
        return self._was_halved


def _where(is_so: Tensor, values: Tensor, others: Tensor) -> Tensor:
    """Of each image ``(N, ...)`` the one or the other."""
    return torch.where(is_so.view(-1, 1, 1, 1), values, others)


def _length(delta: Tensor) -> Tensor:
    return delta.square().sum((1, 2, 3), keepdim=True).sqrt()


def _unit(delta: Tensor) -> Tensor:
    return delta / (_length(delta) + _TINY)
