"""Gradient ascent from noise to images that a network responds to."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.network import Network
from lightning_modules.random_numbers import seed_from
from lightning_modules.synthesis.objectives import Objective, respond
from lightning_modules.synthesis.parametrizations import Parametrization, Size
from lightning_modules.synthesis.regularizers import Regularizer
from lightning_modules.synthesis.schedules import Schedule
from lightning_modules.synthesis.transforms import Transform
from lightning_modules.synthesis.views import resized

VARIANTS = ("neither", "TV only", "shifts only", "both")
"""What an ablation compares, in order: without regularizers and transforms, with the one or the other, with both."""


@dataclass(frozen=True)
class Recipe:
    """How images are made.

    Attributes:
        parametrization: What is optimized.
        regularizers: Penalties of the image itself, subtracted from the objective.
        transforms: What the image goes through, in this order and anew at each step, before the network sees it.
        steps: Steps of Adam, at least 1.
        learning_rate: Of Adam, above 0.
        warm_up: Share of the steps, in [0, 1], over which the penalties grow, as the square of the step, from nothing
            to their weights. From noise, which has little of the objective and much total variation, they would
            otherwise lead to a grey image.
        schedule: What changes from step to step. None = nothing.

    Raises:
        InputError: If ``steps``, ``learning_rate`` or ``warm_up`` is out of its range.
    """

    parametrization: Parametrization
    regularizers: Sequence[Regularizer]
    transforms: Sequence[Transform]
    steps: int
    learning_rate: float
    warm_up: float = 0.0
    schedule: Schedule | None = None

    def ablated(self) -> dict[str, Recipe]:
        """This recipe without regularizers and transforms, with only the one or the other, and as it is."""
        bare = replace(self, regularizers=[], transforms=[])
        return dict(zip(VARIANTS, (bare, replace(self, transforms=[]), replace(self, regularizers=[]), self)))

    def frequencies(self, size: Size) -> Tensor | None:
        """That of each parameter, in cycles a pixel, where the schedule asks for it; None where nobody does."""
        if self.schedule is None:
            return None
        found = self.parametrization.frequencies(size)
        if found is None and self.schedule.cutoff(1, self.steps) < math.inf:
            raise InputError(
                f"{self.schedule!r} moves low frequencies first, and {self.parametrization!r} has none: take "
                "FourierImage."
            )
        return found

    def __post_init__(self) -> None:
        check_at_least_one(steps=self.steps)
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if not 0 <= self.warm_up <= 1:
            raise InputError(f"warm_up must lie in [0, 1], got {self.warm_up}.")


@dataclass(frozen=True)
class Progress:
    """Where an optimization stands after a step.

    Attributes:
        step: Steps done.
        images: The images so far, ``(N, 3, H, W)`` in [0, 1], detached.
        activation: The objective of each image under the transforms of this step, ``(N,)``, without penalties.
        reached: Whether the gradient of the objective, without penalties, is other than zero at a pixel of each image
            at this step, bool ``(N,)``.
    """

    step: int
    images: Tensor
    activation: Tensor
    reached: Tensor


def maximize(
    network: Network,
    objective: Objective,
    target: Tensor,
    recipe: Recipe,
    size: Size,
    keys: Sequence[str],
    on_step: Callable[[Progress], None] | None = None,
) -> Tensor:
    """Optimizes an image for each target.

    The network is not changed; no parameter gets a gradient. It works under ``torch.inference_mode`` too. All that is
    random about an image follows from its key and the number of the step.

    Args:
        network: From pixels in [0, 1] to logits; in eval mode.
        objective: What is maximized.
        target: The class or channel of each image, long ``(N,)``.
        recipe: How.
        size: Height and width in pixels of the images.
        keys: What is drawn for each image follows from its key.
        on_step: Called after each step.

    Returns:
        The images, ``(N, 3, H, W)`` in [0, 1], in the dtype of the network's parameters.
    """
    like = next(network.parameters())
    with gradients_enabled(), _repeatable():
        # A clone, since autograd cannot keep a tensor that was made under inference mode.
        target = target.to(like.device).clone()
        start = [recipe.parametrization.start(size, generator) for generator in generators(keys, 0)]
        parameters = torch.cat(start).to(like).requires_grad_()
        optimizer = torch.optim.Adam([parameters], lr=recipe.learning_rate)
        schedule, frequencies = recipe.schedule, recipe.frequencies(size)
        for step in range(1, recipe.steps + 1):
            images = recipe.parametrization.pixels(parameters, size)
            seen = images.detach().requires_grad_()
            views, drawn = seen, generators(keys, step)
            for transform in recipe.transforms:
                views = transform(views, drawn)
            if schedule is not None:
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * schedule.rate(step, recipe.steps)
                views = resized(views, schedule.view_size(step, recipe.steps, size[0]))
            output = respond(network, views.contiguous(memory_format=torch.channels_last), objective.layer)
            activation = objective(output.to(like.dtype), target)
            (ascent,) = torch.autograd.grad(activation.sum(), seen, materialize_grads=True)
            ramp = min(1.0, step / (recipe.warm_up * recipe.steps)) ** 2 if recipe.warm_up else 1.0
            descent = ramp * _descent(recipe.regularizers, seen) - without_scale(ascent)
            (parameters.grad,) = torch.autograd.grad(images, parameters, descent)
            if schedule is not None and frequencies is not None:
                parameters.grad *= (frequencies <= schedule.cutoff(step, recipe.steps)).to(parameters)
            optimizer.step()
            if on_step is not None:
                reached = ascent.flatten(1).any(1)
                on_step(Progress(step, images.detach(), activation.detach(), reached))
        return recipe.parametrization.pixels(parameters, size).detach()


def without_scale(gradients: Tensor) -> Tensor:
    r"""Gradients of images ``(N, 3, H, W)``, each over its root mean square and the number of its elements.

    .. math:: \frac{g}{D \sqrt{\frac{1}{D} \sum_i g_i^2}}, \quad D = 3 H W

    The logits of two networks, and of a network at the start and at the end of an ascent, may differ a hundredfold; a
    penalty's weight then means the same for all of them. A gradient of zeros stays.
    """
    size = gradients[0].numel()
    scale = gradients.square().mean((1, 2, 3), keepdim=True).sqrt() * size
    return gradients / scale.where(scale != 0, 1)


def _descent(regularizers: Sequence[Regularizer], images: Tensor) -> Tensor:
    """The gradient of the penalties of images that need one, ``(N, 3, H, W)``."""
    if not regularizers:
        return torch.zeros_like(images)
    # Each image changes its own penalty alone, so the gradient of the sum is every image's own.
    penalty = torch.stack([regularizer(images) for regularizer in regularizers]).sum()
    return torch.autograd.grad(penalty, images, materialize_grads=True)[0]


def generators(keys: Sequence[str], step: int | str) -> list[torch.Generator]:
    """A generator on the CPU for each image, seeded by its key and the step."""
    return [torch.Generator().manual_seed(seed_from(key, step)) for key in keys]


@contextmanager
def _repeatable() -> Iterator[None]:
    # cuDNN may otherwise take convolutions whose sums differ from run to run, and hundreds of steps amplify that.
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
