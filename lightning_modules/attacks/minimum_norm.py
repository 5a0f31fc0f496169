"""Attacks that look for the nearest image that fools, by Foolbox. Nothing else imports it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_modules.attacks.base import (
    CLIP_MAX,
    CLIP_MIN,
    Attack,
    Sweep,
    check_norm,
    checked,
    float32_gradients,
    only_in_range,
)
from lightning_modules.attacks.distances import moved
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network

INSTALL = "pip install 'vgg-lens[foolbox]' (that is, foolbox)"


class MinimumNormAttack(Attack):
    """Looks for the nearest image that fools the network; a budget then clips what it found.

    So one search serves a whole sweep, and the rows have its ``distance``, in the norm of the attack: no budget below
    it fools by this image, and every other does. It is an upper bound, since a nearer image may fool too. An image
    that is what the attack wants as it is has distance 0, and one of which the search found nothing has none.

    Images are searched one by one, as a batch would change them; Foolbox reads the logits at each step, so a GPU is
    waited for.

    Raises:
        InputError: If Foolbox is not installed, or an option is out of its range.
    """

    finds_distance = True
    caveat = "Below the distance of an image its budgets hardly fool: they clip the nearest image that was found."
    n_steps: int

    def __init__(self) -> None:
        self.search()

    @abstractmethod
    def search(self) -> Any:
        """Foolbox's attack."""

    def n_passes(self) -> int:
        return self.n_steps + 1  # and what it found, once more

    def __call__(self, network: Network, images: Tensor, target: Tensor, eps: float) -> Tensor:
        network, images, target, eps = checked(self, network, images, target, eps)
        with trusted():
            return self.sweep(ForwardPass(network, images), target, [eps]).adversarial[0]

    def sweep(self, forward_pass: ForwardPass, target: Tensor, eps: Sequence[float]) -> Sweep:
        """Attacks the images of a pass by one search. Of an image with pixels outside [0, 1] it makes NaN."""
        with trusted(), float32_gradients(forward_pass.images.device):
            images = only_in_range(forward_pass.images.detach())
            nearest, fools = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
            for i in (~images.isnan().flatten(1).any(1)).nonzero().flatten().tolist():
                nearest[i], fools[i] = self._nearest(forward_pass.network, images[i : i + 1], target[i : i + 1].clone())
        distance = moved(images, [nearest], float(self.norm))[0].distance(float(self.norm))
        adversarial = [self._clipped(images, nearest, distance, value) for value in eps]
        return Sweep(adversarial, torch.zeros_like(fools), distance.where(fools.to(distance.device), torch.nan))

    def _nearest(self, network: Network, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest image that was found, ``(3, H, W)``, and whether it fools, a bool, of ``(1, 3, H, W)``."""
        foolbox = _foolbox()
        model = foolbox.PyTorchModel(_Classifier(network), (CLIP_MIN, CLIP_MAX), image.device)
        criterion = (foolbox.criteria.TargetedMisclassification if self.targeted else foolbox.Misclassification)(target)
        # Where a gradient is zero, DDN draws one.
        with torch.random.fork_rng([image.device] if image.device.type == "cuda" else []):
            torch.manual_seed(0)
            _, nearest, fools = self.search()(model, image, criterion, epsilons=None)
        return nearest[0].detach(), fools[0]

    def _clipped(self, images: Tensor, nearest: Tensor, distance: Tensor, eps: float) -> Tensor:
        """What was found, where it lies within the budget; else where the way there leaves it."""
        delta, shrunk = nearest - images, (eps / distance).to(images).view(-1, 1, 1, 1)
        delta = delta.clamp(-eps, eps) if self.norm == "inf" else delta * shrunk
        is_within = (distance <= eps).to(images.device).view(-1, 1, 1, 1)
        return nearest.where(is_within, (images + delta).clamp(CLIP_MIN, CLIP_MAX))


class DeepFool(MinimumNormAttack):
    """DeepFool: steps to the nearest boundary, as if the network were linear, until one is crossed; by Foolbox.

    It leads away from the class that the network predicts.

    Args:
        norm: The norm of the distance: 2 or inf.
        n_steps: Most steps, at least 1; each costs a forward and a backward pass for each candidate. A few are enough.
        n_candidates: The most probable classes to which it may lead, at least 2.

    Raises:
        InputError: If Foolbox is not installed, or an option is out of its range.

    Reference: Moosavi-Dezfooli, Fawzi & Frossard, "DeepFool: A Simple and Accurate Method to Fool Deep Neural
    Networks", CVPR 2016.
    """

    meaning = "An attack that looks for the nearest image that fools, in a few straight steps."

    def __init__(self, norm: Literal["inf", 2] = 2, n_steps: int = 50, n_candidates: int = 10) -> None:
        check_norm(norm, (2, "inf"))
        check_at_least_one(n_steps=n_steps)
        if n_candidates < 2:
            raise InputError(f"n_candidates must be at least 2, got {n_candidates}.")
        self.norm: Literal["inf", 2] = norm
        self.n_steps = n_steps
        self.n_candidates = n_candidates
        super().__init__()

    def search(self) -> Any:
        attacks = _foolbox().attacks
        attack = attacks.L2DeepFoolAttack if self.norm == 2 else attacks.LinfDeepFoolAttack
        return attack(steps=self.n_steps, candidates=self.n_candidates)

    def n_passes(self) -> int:
        return self.n_steps * (self.n_candidates - 1) + 2  # at most


class DDN(MinimumNormAttack):
    """Decoupled direction and norm: steps of which the length shrinks while they fool and grows while not; by Foolbox.

    Args:
        targeted: Whether it leads to the class, not away from it.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass.

    Raises:
        InputError: If Foolbox is not installed, or an option is out of its range.

    Reference: Rony et al., "Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and
    Defenses", CVPR 2019.
    """

    meaning = "An attack that looks for the nearest image that fools, by steps that grow until they fool."
    norm = 2

    def __init__(self, targeted: bool = False, n_steps: int = 100) -> None:
        check_at_least_one(n_steps=n_steps)
        self.targeted = targeted
        self.n_steps = n_steps
        super().__init__()

    def search(self) -> Any:
        return _foolbox().attacks.DDNAttack(steps=self.n_steps)


class FMN(MinimumNormAttack):
    """Fast minimum norm: steps along the gradient, within a budget that follows the boundary; by Foolbox.

    In the norm 2, Foolbox 3.3.4 forgets the budget (its projection divides a length by itself), and finds images more
    than ten times as far away. Here it is kept, so that these are not Foolbox's images but the paper's.

    Args:
        norm: The norm of the distance: 2, inf or 1.
        targeted: Whether it leads to the class, not away from it.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass.

    Raises:
        InputError: If Foolbox is not installed, or an option is out of its range.

    Reference: Pintor et al., "Fast Minimum-norm Adversarial Attacks through Adaptive Norm Constraints", NeurIPS 2021.
    """

    meaning = "An attack that looks for the nearest image that fools, along the boundary of the class."

    def __init__(self, norm: Literal["inf", 2, 1] = 2, targeted: bool = False, n_steps: int = 100) -> None:
        check_norm(norm, (2, "inf", 1))
        check_at_least_one(n_steps=n_steps)
        self.norm = norm
        self.targeted = targeted
        self.n_steps = n_steps
        super().__init__()

    def search(self) -> Any:
        attacks = _foolbox().attacks
        kinds = {2: _projecting(attacks.L2FMNAttack), 1: attacks.L1FMNAttack, "inf": attacks.LInfFMNAttack}
        return kinds[self.norm](steps=self.n_steps)


def _projecting(attack: Any) -> Any:
    """Foolbox's FMN of the norm 2, with the projection of the paper."""

    class Projecting(attack):
        def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
            return _foolbox().distances.l2.clip_perturbation(x0, x, epsilon)

    return Projecting


def _foolbox() -> Any:
    try:
        import foolbox
    except ImportError:
        raise InputError(f"DeepFool, DDN and FMN are Foolbox's: {INSTALL}.") from None
    return foolbox


class _Classifier(nn.Module):
    """A network as Foolbox takes one: its ``backward()`` ends at the pixels, and reaches no parameter."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.pass_at = partial(ForwardPass, network)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        if not pixels.requires_grad:
            return self.pass_at(pixels).logits
        return _Logits.apply(pixels, self.pass_at(pixels.detach(), needs=Needs(loss_gradient=True)))


class _Logits(torch.autograd.Function):
    """The logits of a forward pass as a function of its pixels."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, forward_pass: ForwardPass) -> Tensor:
        ctx.forward_pass = forward_pass
        return forward_pass.logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.forward_pass.loss_gradient(lambda logits: (logits * gradients[0]).sum())
        return gradient.contiguous(), None
