"""The fast gradient (sign) method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.attacks.base import (
    CLIP_MAX,
    CLIP_MIN,
    Attack,
    Sweep,
    at_even_odds,
    check_norm,
    checked,
    float32_gradients,
    only_in_range,
)
from lightning_modules.attacks.cleverhans_adapter import steepest_direction
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.gradients.scaling import largest_magnitude
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network


class FGSM(Attack):
    r"""The fast gradient (sign) method: one step along the gradient of the loss, as long as the budget.

    .. math:: x' = \mathrm{clip}_{[0, 1]}\big(x + \varepsilon \cdot d\big), \quad
        d = \arg\max_{\|d\| \le 1} \langle d, \nabla_x L(x, y) \rangle

    ``L`` is the cross-entropy; its sign turns where the attack is targeted. ``d`` is ``sign(∇L)`` for the norm ∞,
    ``∇L / ‖∇L‖`` for 2, and the pixel of the largest magnitude (or the largest, in equal parts) for 1. None of them
    depends on the budget, so one gradient serves a whole sweep, and the direction is cleverhans'.

    It equals cleverhans called once for each budget but for two of its traps: in the norm 2 it divides by no length
    below 1e-6, so a step along a shorter gradient falls short of the budget (and by how much depends on the size of the
    batch, as it differentiates the batch's mean); and its norm 1 fails on a gradient of zeros, or where pixels tie.

    Args:
        norm: The norm that the budget limits: inf, 2 or 1.
        targeted: Whether the step leads to the class, not away from it.
        unsaturate: Whether the logit of the class is shifted, for the gradient alone, so that its probability is 1/2.
            The cross-entropy is ``log(1 + exp(m))`` of the margin ``m`` between the other classes and this one. Its
            gradient is that of ``m`` times ``sigmoid(m)``, which float32 rounds to zero where the network is very
            sure: the attack then does nothing, and the network only looks robust. The shift changes that factor
            alone, so in exact arithmetic the direction is the same.

    Reference: Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> images = torch.full((1, 3, 112, 112), 0.5)
        >>> adversarial = FGSM()(load_vgg16("shapes"), images, torch.tensor([3]), eps=4 / 255)
        >>> round(float((adversarial - images).abs().max()) * 255, 3)
        4.0
    """

    meaning = "An attack in one step: every pixel moves by the same small amount, up or down, as hurts most."

    follows_gradient = True
    caveat = "FGSM takes a single step; the many of PGD (--model.attack PGD) fool far more as a rule."

    def __init__(self, norm: Literal["inf", 2, 1] = "inf", targeted: bool = False, unsaturate: bool = False) -> None:
        check_norm(norm, ("inf", 2, 1))
        self.norm = norm
        self.targeted = targeted
        self.unsaturate = unsaturate

    def needs(self, network: Network) -> Needs:
        return Needs(loss_gradient=True)

    def __call__(self, network: Network, images: Tensor, target: Tensor, eps: float) -> Tensor:
        network, images, target, eps = checked(self, network, images, target, eps)
        with trusted(), float32_gradients(images.device):
            forward_pass = ForwardPass(network, images, needs=self.needs(network))
            return self.sweep(forward_pass, target, [eps]).adversarial[0]

    def sweep(self, forward_pass: ForwardPass, target: Tensor, eps: Sequence[float]) -> Sweep:
        """Attacks the images of a pass under each budget, with one backward pass and no forward of its own.

        Of an image with pixels outside [0, 1] it makes NaN.

        Under autocast, the pass is not in float32, so the attack makes its own.
        """
        images = only_in_range(forward_pass.images.detach())
        autocast = torch.is_autocast_enabled(images.device.type)
        with float32_gradients(images.device):
            classes = target.clone()  # autograd cannot keep a tensor that was made under inference mode

            def loss(logits: Tensor) -> Tensor:
                entropy = F.cross_entropy(at_even_odds(logits, classes) if self.unsaturate else logits, classes)
                return -entropy if self.targeted else entropy

            if autocast:
                forward_pass = forward_pass.at(images, classes, self.needs(forward_pass.network))
            gradient = forward_pass.loss_gradient(loss)
            direction = steepest_direction(gradient, self.norm)
        return Sweep(_steps(images, direction, eps), largest_magnitude(gradient).flatten() == 0)


def _steps(images: Tensor, direction: Tensor, eps: Sequence[float]) -> list[Tensor]:
    """The images after a step as long as each budget, without leaving [0, 1]."""
    return [(direction * value).add_(images).clamp_(CLIP_MIN, CLIP_MAX) for value in eps]
