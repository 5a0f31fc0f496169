"""cleverhans behind one door: the steps that its attacks take. Nothing else imports it.

Its functions take any callable from pixels to logits and call ``backward()``, which would reach the parameters, so they
get one that ends at the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.torch.utils import optimize_linear
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.scaling import scaled_near_one

Norm = Literal["inf", 2, 1]


def steepest_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of length 1 in which a linear function of this gradient grows fastest; zero where the gradient is.

    Of an image whose gradient is not finite there is none: NaN. (cleverhans takes NaN for 0, or fails on the batch.)

    Args:
        gradient: ``(N, 3, H, W)``, of any size.
        norm: The norm in which the direction has length 1.
    """
    is_finite = _are_finite(gradient)
    # cleverhans divides by 1e-6 at least, which a small gradient must stay above.
    gradient = scaled_near_one(gradient.where(is_finite, 0))
    if norm != 1:
        with _Unwaited():
            return optimize_linear(gradient, 1.0, _order(norm)).where(is_finite, torch.nan)
    # cleverhans asserts that the parts of this direction add up to exactly 1, which they do not where ten pixels tie,
    # nor where all are zero.
    magnitude = gradient.abs()
    largest = magnitude == magnitude.amax((1, 2, 3), keepdim=True)
    direction = gradient.sign() * largest / largest.sum((1, 2, 3), keepdim=True)
    return direction.where(is_finite, torch.nan)


def projected_steps(
    pass_at: Callable[[Tensor], ForwardPass],
    logits_of: Callable[[Tensor], Tensor],
    images: Tensor,
    target: Tensor,
    eps: float,
    *,
    step: float,
    n_steps: int,
    norm: Literal["inf", 2],
    targeted: bool,
    clip: tuple[float, float],
) -> Tensor:
    """Images after steps of the fast gradient method, each projected to within ``eps`` of where they began.

    An image on whose way a gradient is not finite is NaN.

    Args:
        pass_at: Gives the forward pass at pixels ``(N, 3, H, W)``; its needs name the loss's gradient.
        logits_of: What is made of the logits before the loss.
        images: Pixels to begin with.
        target: The classes whose cross-entropy grows or, where the attack is targeted, shrinks: long ``(N,)``.
        eps: The budget.
        step: Length of a step.
        n_steps: Number of steps.
        norm: The norm of both.
        targeted: Whether the cross-entropy shrinks.
        clip: The range that pixels keep to.
    """
    is_finite = torch.ones(len(images), 1, 1, 1, dtype=torch.bool, device=images.device)
    with _Unwaited() as unwaited:

        def network(pixels: Tensor) -> Tensor:
            with unwaited.left():
                return logits_of(_Logits.apply(pixels, pass_at(pixels.detach()), is_finite))

        stepped = projected_gradient_descent(
            network,
            images,
            eps,
            step,
            n_steps,
            _order(norm),
            clip_min=clip[0],
            clip_max=clip[1],
            y=target,
            targeted=targeted,
            rand_init=False,
            sanity_checks=False,
        ).detach()
    return stepped.where(is_finite, torch.nan)


def _are_finite(gradient: Tensor) -> Tensor:
    """Of which images the gradient is finite, bool ``(N, 1, 1, 1)``."""
    return gradient.isfinite().flatten(1).all(1).view(-1, 1, 1, 1)


def _order(norm: Literal["inf", 2, 1]) -> float | int:
    return math.inf if norm == "inf" else norm


class _Unwaited(TorchFunctionMode):
    """Lets cleverhans do, inside, without what it would wait for a GPU for.

    It asserts at each step that a direction that it has just divided by its length has length 1, and makes its
    constants on the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_left = False

    @contextmanager
    def left(self) -> Iterator[None]:
        """What runs inside is not cleverhans' own."""
        self.is_left = True
        try:
            yield
        finally:
            self.is_left = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.is_left:
            if func is torch.allclose:
                return True
            if func is torch.tensor and isinstance(args[0], float | int):
                return torch.full((), args[0], **kwargs)
        return func(*args, **kwargs)


class _Logits(torch.autograd.Function):
    """The logits of a forward pass as a function of its pixels, up to a positive factor on each image's gradient.

    A gradient that is not finite is zero; ``is_finite``, ``(N, 1, 1, 1)``, keeps that there was one.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, forward_pass: ForwardPass, is_finite: Tensor) -> Tensor:
        ctx.forward_pass, ctx.is_finite = forward_pass, is_finite
        return forward_pass.logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.forward_pass.loss_gradient(lambda logits: (logits * gradients[0]).sum())
        ctx.is_finite &= _are_finite(gradient)
        return scaled_near_one(gradient.where(ctx.is_finite, 0)), None, None
