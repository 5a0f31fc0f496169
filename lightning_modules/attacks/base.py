"""Attacks: small callable objects from a model and images to adversarial images. Alone imports cleverhans.

Pixels are in [0, 1] and stay there; budgets (``eps``) are in the same unit. An attack is computed in float32, also
where the model is evaluated in bf16: the sign of a gradient is worth nothing where rounding decides it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import Tensor, nn

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.options import NamedByOptions

CLIP_MIN, CLIP_MAX = 0.0, 1.0
"""The range of real pixels, which no adversarial image leaves."""


class Sweep(NamedTuple):
    """What an attack makes of a batch under several budgets.

    Attributes:
        adversarial: Images ``(N, 3, H, W)`` for each budget.
        vanished: Where the attack had no gradient to follow, so that it did nothing: bool ``(N,)``.
    """

    adversarial: list[Tensor]
    vanished: Tensor


class Attack(NamedByOptions, ABC):
    """What an attack is: a call from a model, images, classes and a budget to adversarial images.

    To add one, derive a class in a file of your own, keep each option of ``__init__`` as the attribute of its name, and
    name the class on the command line by its import path.

    Example:
        >>> class Darken(Attack):
        ...     def __call__(self, model, images, target, eps):
        ...         return (images - eps).clamp(0, 1)
        >>> Darken()(nn.Identity(), torch.tensor([0.5, 0.05]), torch.tensor(0), eps=0.1)
        tensor([0.4000, 0.0000])
    """

    norm: Literal["inf", 2, 1] = "inf"
    """The norm of the perturbation that ``eps`` limits."""

    targeted: bool = False
    """Whether the attack leads to the class ``target``, not away from it."""

    @abstractmethod
    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        """Adversarial images ``(N, 3, H, W)`` in [0, 1], no farther than ``eps`` from ``images``.

        Args:
            model: Maps images to logits ``(N, n_classes)``; in eval mode.
            images: Pixels in [0, 1], ``(N, 3, H, W)``.
            target: The class to lead away from or, where the attack is targeted, to: long ``(N,)``.
            eps: The budget, in pixel units, at least 0.
        """

    def sweep(self, forward_pass: ForwardPass, target: Tensor, eps: Sequence[float]) -> Sweep:
        """Attacks the images of a pass under each budget; a subclass may share work between them.

        As it cannot look inside the attack, this one calls it vanished where no budget moved the image at all.
        """
        images = forward_pass.images.detach()
        with _float32_gradients(images.device):
            adversarial = [self(forward_pass.model, images, target, value).detach() for value in eps]
        still = [(image == images).flatten(1).all(1) for image in adversarial]
        return Sweep(adversarial, torch.stack(still).all(0))


class FGSM(Attack):
    r"""The fast gradient (sign) method: one step along the gradient of the loss, as long as the budget.

    .. math:: x' = \mathrm{clip}_{[0, 1]}\big(x + \varepsilon \cdot d\big), \quad
        d = \arg\max_{\|d\| \le 1} \langle d, \nabla_x L(x, y) \rangle

    ``L`` is the cross-entropy; its sign turns where the attack is targeted. ``d`` is ``sign(∇L)`` for the norm ∞,
    ``∇L / ‖∇L‖`` for 2, and the pixel of the largest magnitude (or the largest, in equal parts) for 1. None of them
    depends on the budget, so one gradient, which cleverhans computes, serves a whole sweep.

    It equals cleverhans called once for each budget but for two of its traps: in the norm 2 it divides by no length
    below 1e-6, so a step along a shorter gradient falls short of the budget (and by how much depends on the size of the
    batch, as it differentiates the batch's mean); and its norm 1 fails on a gradient of zeros.

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

    def __init__(self, norm: Literal["inf", 2, 1] = "inf", targeted: bool = False, unsaturate: bool = False) -> None:
        _check_norm(norm, ("inf", 2, 1))
        self.norm = norm
        self.targeted = targeted
        self.unsaturate = unsaturate

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        with _float32_gradients(images.device):
            return self.sweep(ForwardPass(model, images, layers=()), target, [eps]).adversarial[0]

    def sweep(self, forward_pass: ForwardPass, target: Tensor, eps: Sequence[float]) -> Sweep:
        """Attacks the images of a pass under each budget, with one backward pass and no forward of its own.

        Under autocast, the pass is not in float32, so the attack makes its own.
        """
        images = forward_pass.images.detach()
        _check_images(images)
        autocast = torch.is_autocast_enabled(images.device.type)
        with _float32_gradients(images.device):
            if autocast:
                forward_pass = ForwardPass(forward_pass.model, images, layers=())
            link = _Link(lambda _: forward_pass, target, self.unsaturate)
            # The image that it makes is not used, only the gradient that it leaves.
            fast_gradient_method(link, images, 1.0, math.inf, y=link.target, targeted=self.targeted)
            gradient = link.gradient
        direction = _steepest(gradient, self.norm)
        adversarial = [(images + value * direction).clamp(CLIP_MIN, CLIP_MAX) for value in eps]
        return Sweep(adversarial, (gradient == 0).flatten(1).all(1))


class PGD(Attack):
    """Projected gradient descent: steps of the fast gradient method, each projected into the budget; by cleverhans.

    It starts at the image itself (as Kurakin et al. do; Madry et al. start at a random point of the budget), so it
    draws no random numbers and gives the same on any number of devices.

    Args:
        norm: The norm that the budget limits: inf or 2.
        targeted: Whether the steps lead to the class, not away from it.
        n_steps: Number of steps, at least 1; each costs a forward and a backward pass, for every budget.
        relative_step: Length of a step as a fraction of the budget, in (0, 1].
        unsaturate: As in :class:`FGSM`.

    Reference: Kurakin, Goodfellow & Bengio, "Adversarial Examples in the Physical World", ICLR 2017 workshop; Madry et
    al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> images = torch.full((1, 3, 112, 112), 0.5)
        >>> adversarial = PGD(norm=2, n_steps=2)(load_vgg16("shapes"), images, torch.tensor([3]), eps=1.0)
        >>> float((adversarial - images).norm()) <= 1.0001
        True
    """

    def __init__(
        self,
        norm: Literal["inf", 2] = "inf",
        targeted: bool = False,
        n_steps: int = 10,
        relative_step: float = 0.25,
        unsaturate: bool = False,
    ) -> None:
        _check_norm(norm, ("inf", 2))
        if n_steps < 1:
            raise InputError(f"n_steps must be at least 1, got {n_steps}.")
        if not 0 < relative_step <= 1:
            raise InputError(f"relative_step must lie in (0, 1], got {relative_step}.")
        self.norm = norm
        self.targeted = targeted
        self.n_steps = n_steps
        self.relative_step = relative_step
        self.unsaturate = unsaturate

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        _check_images(images)
        with _float32_gradients(images.device):
            images = images.detach().clone()
            link = _Link(lambda x: ForwardPass(model, x.to(images.dtype), layers=()), target, self.unsaturate)
            return projected_gradient_descent(
                link,
                images,
                eps,
                eps * self.relative_step,
                self.n_steps,
                math.inf if self.norm == "inf" else self.norm,
                clip_min=CLIP_MIN,
                clip_max=CLIP_MAX,
                y=link.target,
                targeted=self.targeted,
                rand_init=False,
                sanity_checks=False,
            ).detach()


def check_budget(attack: Attack, images: Tensor, adversarial: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The measured L∞ and L2 distances of each image, float64 ``(N,)``.

    Raises:
        InputError: If an attack gave images of another shape, outside [0, 1], or farther than ``eps`` beyond what
            rounding explains: half a unit in the last place of each pixel that moved.
    """
    if adversarial.shape != images.shape:
        raise InputError(f"The attack {attack!r} gave {tuple(adversarial.shape)} of images {tuple(images.shape)}.")
    delta = (adversarial.double() - images.double()).flatten(1)
    order = float(attack.norm)
    distance = torch.linalg.vector_norm(delta, order, 1)
    rounding = 2**-24 * (delta != 0).sum(1) ** (1 / order)
    if not ((distance <= eps * (1 + 1e-6) + rounding).all() and _is_in_range(adversarial)):
        raise InputError(
            f"The attack {attack!r} left its bounds: with eps {format_eps(eps)} it moved an image by "
            f"{float(distance.max()):.6g} (norm {attack.norm}), to pixels in [{float(adversarial.min()):.6g}, "
            f"{float(adversarial.max()):.6g}]."
        )
    return torch.linalg.vector_norm(delta, torch.inf, 1), torch.linalg.vector_norm(delta, 2, 1)


class _Link:
    """The model as cleverhans sees it: pixels -> logits, of which the gradient comes from a :class:`ForwardPass`.

    cleverhans calls ``backward()``, which would reach the parameters; this ends at the pixels.

    Attributes:
        target: The classes, in a tensor that autograd can keep.
    """

    def __init__(self, pass_at: Callable[[Tensor], ForwardPass], target: Tensor, unsaturate: bool) -> None:
        self.pass_at = pass_at
        self.target = target.clone()
        self.unsaturate = unsaturate
        self.pixels: Tensor

    @property
    def gradient(self) -> Tensor:
        """The gradient that cleverhans left where it called last, ``(N, 3, H, W)``."""
        assert self.pixels.grad is not None
        return self.pixels.grad

    def __call__(self, pixels: Tensor) -> Tensor:
        self.pixels = pixels
        logits = _Logits.apply(pixels, self.pass_at(pixels.detach()))
        return _at_even_odds(logits, self.target) if self.unsaturate else logits


class _Logits(torch.autograd.Function):
    """The logits of a forward pass as a function of its pixels, up to a positive factor on each image's gradient.

    The factor is a power of two that brings the largest entry near 1. It changes no direction, not by a bit, and keeps
    a small gradient above the 1e-6 that cleverhans divides by at least.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, forward_pass: ForwardPass) -> Tensor:
        ctx.forward_pass = forward_pass
        return forward_pass.logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = ctx.forward_pass.pull_back(gradients[0])
        exponent = torch.frexp(gradient.abs().amax((1, 2, 3), keepdim=True)).exponent
        # float32 has no power of two above 2^127.
        return torch.ldexp(gradient, -exponent.clamp_min(-126)), None


def _at_even_odds(logits: Tensor, target: Tensor) -> Tensor:
    """The logits with that of ``target`` shifted, by a constant, to where its probability is 1/2."""
    column = target[:, None]
    others = logits.scatter(1, column, -math.inf).logsumexp(1, keepdim=True)
    return logits.scatter_add(1, column, (others - logits.gather(1, column)).detach())


def _steepest(gradient: Tensor, norm: Literal["inf", 2, 1]) -> Tensor:
    """The direction of length 1 in which a linear function grows fastest; zero where the gradient is."""
    if norm == "inf":
        return gradient.sign()
    dims = (1, 2, 3)
    if norm == 2:
        length = gradient.square().sum(dims, keepdim=True).sqrt()
        return gradient / length.where(length > 0, 1)
    magnitude = gradient.abs()
    largest = magnitude == magnitude.amax(dims, keepdim=True)
    return gradient.sign() * largest / largest.sum(dims, keepdim=True)


@contextmanager
def _float32_gradients(device: torch.device) -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield


def _check_norm(norm: str | int, known: Sequence[str | int]) -> None:
    if norm not in known:
        raise InputError(f"norm must be one of {', '.join(map(str, known))}, got {norm!r}.")


def _is_in_range(images: Tensor) -> bool:
    return bool(((images >= CLIP_MIN) & (images <= CLIP_MAX)).all())


def _check_images(images: Tensor) -> None:
    if not _is_in_range(images):
        raise InputError(
            f"The images to attack must have pixels in [0, 1], got [{images.min():.3g}, {images.max():.3g}]. If they "
            "are normalized, leave that to the model: load_vgg16 does it inside."
        )
