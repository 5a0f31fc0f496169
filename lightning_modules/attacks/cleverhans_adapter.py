"""cleverhans behind one door: the steps that its attacks take. Nothing else imports it.

Its functions take any callable from pixels to logits and call ``backward()``, which would reach the parameters, so they
get one that ends at the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from cleverhans.torch.attacks.noise import noise
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.torch.attacks.sparse_l1_descent import sparse_l1_descent
from cleverhans.torch.attacks.spsa import spsa
from cleverhans.torch.utils import optimize_linear
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_modules.attacks.base import CLIP_MAX, CLIP_MIN
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.gradients.scaling import largest_magnitude, scaled_near_one
from lightning_modules.host import replaced
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import RandomNumbers

Norm = Literal["inf", 2, 1]

_CLIP = {"clip_min": CLIP_MIN, "clip_max": CLIP_MAX}


def steepest_direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of length 1 in which a linear function of this gradient grows fastest; zero where the gradient is.

    Of an image whose gradient is not finite there is none: NaN. (cleverhans takes NaN for 0, or fails on the batch.)

    Args:
        gradient: ``(N, 3, H, W)``, of any size.
        norm: The norm in which the direction has length 1.
    """
    is_lost = ~_are_finite(gradient)
    gradient = replaced(gradient, is_lost, 0)
    if norm == 2:
        gradient = scaled_near_one(gradient)  # cleverhans divides by 1e-6 at least, which a small one must stay above
    if norm != 1:
        with _Unwaited():
            direction = optimize_linear(gradient, 1.0, _order(norm))
        return replaced(direction, is_lost, torch.nan)
    # cleverhans asserts that the parts of this direction add up to exactly 1, which they do not where ten pixels tie,
    # nor where all are zero.
    magnitude = gradient.abs()
    largest = magnitude == magnitude.amax((1, 2, 3), keepdim=True)
    direction = gradient.sign() * largest / largest.sum((1, 2, 3), keepdim=True)
    return replaced(direction, is_lost, torch.nan)


def projected_steps(
    network: Network,
    images: Tensor,
    target: Tensor,
    eps: float,
    *,
    logits_of: Callable[[Tensor], Tensor],
    step: float,
    n_steps: int,
    norm: Literal["inf", 2],
    targeted: bool,
    seeds: Sequence[int] | None,
) -> Tensor:
    """Images after steps of the fast gradient method, each projected to within ``eps`` of where they began.

    An image on whose way a gradient is not finite is NaN.

    Args:
        network: From pixels to logits.
        images: Pixels to begin with.
        target: The classes whose cross-entropy grows or, where the attack is targeted, shrinks: long ``(N,)``.
        eps: The budget.
        logits_of: What is made of the logits before the loss.
        step: Length of a step.
        n_steps: Number of steps.
        norm: The norm of both.
        targeted: Whether the cross-entropy shrinks.
        seeds: Of each image, from which a point of the budget to begin at is drawn. None = it begins at the image.
    """
    lengths, options = (eps, step, n_steps, _order(norm)), {"targeted": targeted, "rand_init": seeds is not None}
    return _along_gradients(projected_gradient_descent, network, images, target, lengths, options, logits_of, seeds)


def sparse_steps(
    network: Network,
    images: Tensor,
    target: Tensor,
    eps: float,
    *,
    step: float,
    n_steps: int,
    sparsity: float,
    targeted: bool,
) -> Tensor:
    """Images after steps along the signs of the largest entries of the gradient, projected to within ``eps`` in norm 1.

    An image on whose way a gradient is not finite is NaN.

    Args:
        network: As of :func:`projected_steps`; and so are all others.
        images: Pixels to begin with, contiguous.
        target: The classes.
        eps: The budget.
        step: Length of a step, in the norm 1.
        n_steps: Number of steps.
        sparsity: Percent of the entries that a step leaves out.
        targeted: Whether the cross-entropy shrinks.
    """
    lengths, options = (eps, step, n_steps), {"targeted": targeted, "grad_sparsity": float(sparsity)}
    return _along_gradients(sparse_l1_descent, network, images, target, lengths, options)


def _along_gradients(
    attack: Callable[..., Tensor],
    network: Network,
    images: Tensor,
    target: Tensor,
    lengths: tuple[float, ...],
    options: Mapping[str, Any],
    logits_of: Callable[[Tensor], Tensor] = lambda logits: logits,
    seeds: Sequence[int] | None = None,
) -> Tensor:
    """What an attack of cleverhans makes of images, with the gradients of our passes; NaN where one is not finite."""
    is_finite = torch.ones(len(images), dtype=torch.bool, device=images.device)
    with _Unwaited(seeds) as unwaited:

        def logits(pixels: Tensor) -> Tensor:
            with unwaited.left():
                at = pixels.detach().to(images.dtype)
                forward_pass = ForwardPass(network, at, needs=Needs(loss_gradient=True))
                return logits_of(_Logits.apply(pixels, forward_pass, is_finite))

        stepped = attack(logits, images, *lengths, y=target, **options, **_CLIP, sanity_checks=False).detach()
    return replaced(stepped, ~is_finite, torch.nan)


def noised(images: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
    """Images with uniform noise up to ``eps``, drawn for each from its seed, within [0, 1]."""
    with _Unwaited(seeds):
        return noise(images, eps, **_CLIP)


def spsa_steps(
    network: Network,
    images: Tensor,
    target: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    norm: Literal["inf", 2],
    n_steps: int,
    **options: Any,
) -> Tensor:
    """Images after steps of Adam along a gradient that is estimated, each projected to within ``eps``.

    Args:
        network: From pixels to logits.
        images: Pixels to begin with.
        target: The classes whose margin shrinks or, where the attack is targeted, grows.
        eps: The budget.
        seeds: Of all that is drawn for each image.
        norm: The norm of the budget.
        n_steps: Number of steps.
        **options: cleverhans' own: ``targeted``, ``learning_rate``, ``delta``, ``spsa_samples``.
    """
    stepped = []
    # cleverhans takes them one by one as well.
    for image, of_image, seed in zip(images.split(1), target.split(1), seeds, strict=True):
        with _Unwaited([seed]) as unwaited:

            def logits(pixels: Tensor, unwaited: _Unwaited = unwaited) -> Tensor:
                with unwaited.left():
                    return network(pixels.contiguous(memory_format=torch.channels_last))

            options |= {"y": of_image, "sanity_checks": False}
            stepped.append(spsa(logits, image, eps, n_steps, _order(norm), **_CLIP, **options))
    return torch.cat(stepped)


def _are_finite(gradient: Tensor) -> Tensor:
    """Of which images the gradient is finite, bool ``(N,)``."""
    return largest_magnitude(gradient).isfinite().flatten()


def _order(norm: Literal["inf", 2, 1]) -> float | int:
    return math.inf if norm == "inf" else norm


class _Unwaited(TorchFunctionMode):
    """Lets cleverhans do, inside, without what it would wait for a GPU for, and draws for each image by itself.

    It asserts at each step that a direction that it has just divided by its length has length 1, makes its constants on
    the host, and draws random numbers for a whole batch at once.

    Args:
        seeds: Of each image, for what is drawn. None = nothing is.
    """

    def __init__(self, seeds: Sequence[int] | None = None) -> None:
        super().__init__()
        self.is_left = False
        self._seeds = seeds
        self._numbers: RandomNumbers | None = None
        self._n_drawn = 0

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
            if self._seeds is not None and func is torch.Tensor.uniform_:
                low, high = args[1:]
                return args[0].copy_(low + (high - low) * self._drawn(args[0]))
            if self._seeds is not None and func is torch.rand_like:  # which SPSA calls, of a single image
                return self._drawn(args[0])
        return func(*args, **kwargs)

    def _drawn(self, images: Tensor) -> Tensor:
        """The next numbers of each image, uniform in [0, 1), like the images, or like copies of the one image."""
        seeds = self._seeds or ()
        self._numbers = self._numbers or RandomNumbers(seeds, images.device)
        copies = slice(self._n_drawn, self._n_drawn + len(images) // max(1, len(seeds)))
        self._n_drawn = copies.stop
        return self._numbers.uniform(copies, images.shape[1:]).flatten(0, 1).to(images.dtype)


class _Logits(torch.autograd.Function):
    """The logits of a forward pass as a function of its pixels, up to a positive factor on each image's gradient.

    A gradient that is not finite is zero; ``is_finite``, ``(N,)``, keeps that there was one.
    """

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, forward_pass: ForwardPass, is_finite: Tensor) -> Tensor:
        ctx.forward_pass, ctx.is_finite, ctx.is_contiguous = forward_pass, is_finite, pixels.is_contiguous()
        return forward_pass.logits.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = ctx.forward_pass.loss_gradient(lambda logits: (logits * gradients[0]).sum())
        ctx.is_finite &= _are_finite(gradient)
        scaled = scaled_near_one(replaced(gradient, ~ctx.is_finite, 0))
        # cleverhans takes views of it, as it may of the gradient of contiguous pixels.
        return scaled.contiguous() if ctx.is_contiguous else scaled, None, None
