"""What an attack is: a small callable object from a network and images to adversarial images.

Pixels are in [0, 1] and stay there; budgets (``eps``) are in the same unit. An attack is computed in float32, also
where the network is evaluated in bf16: the sign of a gradient is worth nothing where rounding decides it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_modules.attacks.budgets import format_eps, parse_eps, parse_sweep
from lightning_modules.attacks.distances import moved
from lightning_modules.errors import InputError, told_from
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.host import replaced, where_float64_is
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.inputs import ROUNDING, are_pixels, check_images, target_classes, trusted
from lightning_modules.networks.network import Network, check_network
from lightning_modules.text import NamedByOptions

CLIP_MIN, CLIP_MAX = 0.0, 1.0
"""The range of real pixels, which no adversarial image leaves."""

_OF_IMAGE = (1, 2, 3)
"""The dimensions of one image. To flatten images in channels_last would copy them."""


class Sweep(NamedTuple):
    """What an attack makes of a batch under several budgets.

    Attributes:
        adversarial: Images ``(N, 3, H, W)`` for each budget.
        vanished: Where the attack had no gradient to follow, so that it did nothing: bool ``(N,)``.
        distance: How far the nearest image lies that was found to fool, float64 ``(N,)``, NaN where none was; of an
            attack that :attr:`~Attack.finds_distance` alone.
    """

    adversarial: list[Tensor]
    vanished: Tensor
    distance: Tensor | None = None


class Distances(NamedTuple):
    """How far an attack moved N images; not read yet, so nothing was waited for.

    Attributes:
        linf: In the norm ∞, measured, float64 ``(N,)``.
        l2: In the norm 2, measured, float64 ``(N,)``.
        is_within: Whether an image kept to its budget and to pixels in [0, 1], bool ``(N,)``.
    """

    linf: Tensor
    l2: Tensor
    is_within: Tensor

    @property
    def is_lost(self) -> Tensor:
        """Of which images the attack gave a pixel that is NaN, bool ``(N,)``."""
        return self.linf.isnan()


class Attack(NamedByOptions, ABC):
    """What an attack is: a call from a model, images, classes and a budget to adversarial images.

    To add one, derive a class in a file of your own, keep each option of ``__init__`` as the attribute of its name, and
    name the class on the command line by its import path.

    Example:
        >>> class Darken(Attack):
        ...     def __call__(self, network, images, target, eps):
        ...         return (images - eps).clamp(0, 1)
    """

    norm: Literal["inf", 2, 1] = "inf"
    """The norm of the perturbation that ``eps`` limits."""

    targeted: bool = False
    """Whether the attack leads to the class ``target``, not away from it."""

    follows_gradient: bool = False
    """Whether the attack leaves an image as it is only where its gradient vanished."""

    finds_distance: bool = False
    """Whether it looks for the nearest image that fools, once for all budgets."""

    caveat: str = ""
    """What does not follow where this attack fools nothing; a sentence for reports."""

    def needs(self, network: Network) -> Needs:
        """What :meth:`sweep` reads of the pass at the clean images; unless an attack says more, the pixels alone."""
        return Needs()

    def n_passes(self) -> int:
        """How many images it shows a network for each one and budget, so that a run can say how long that takes."""
        return 0

    @abstractmethod
    def __call__(self, network: Network, images: Tensor, target: Tensor, eps: float) -> Tensor:
        """Adversarial images ``(N, 3, H, W)`` in [0, 1], no farther than ``eps`` from ``images``.

        Args:
            network: From pixels in [0, 1] to logits ``(N, n_classes)``; in eval mode.
            images: Pixels in [0, 1], ``(N, 3, H, W)``.
            target: The class to lead away from or, where the attack is targeted, to: long ``(N,)``.
            eps: The budget, in pixel units, at least 0.
        """

    def of_pass(self, forward_pass: ForwardPass, images: Tensor, target: Tensor, eps: float) -> Tensor:
        """The same of the ``images`` of a pass, which knows more of them, such as what their noise is seeded from."""
        return self(forward_pass.network, images, target, eps)

    def sweep(self, forward_pass: ForwardPass, target: Tensor, eps: Sequence[float]) -> Sweep:
        """Attacks the images of a pass under each budget; a subclass may share work between them.

        It is to read nothing of them, since a GPU would be waited for, so it refuses no image: of one with pixels
        outside [0, 1] it makes NaN. As it cannot look inside the attack, this one says that the gradient vanished
        where no budget moved the image and the attack :attr:`follows_gradient`.
        """
        images = only_in_range(forward_pass.images.detach())
        with trusted(), float32_gradients(images.device):
            # Clones, of which an attack may make something else in place.
            adversarial = [self.of_pass(forward_pass, images.clone(), target, value).detach() for value in eps]
        still = [(image == images).all(_OF_IMAGE) for image in adversarial]
        return Sweep(adversarial, torch.stack(still).all(0) & self.follows_gradient)


def distances_of(
    attack: Attack, images: Tensor, adversarial: Sequence[Tensor], eps: Sequence[float]
) -> list[Distances]:
    """How far an attack moved each image under each budget, and whether that is within its bounds.

    These are pixels in [0, 1] and the budget, beyond it what rounding explains: half a unit in the last place of each
    pixel that moved. All are NaN, and the bounds left, where the attack gave a pixel that is.

    Raises:
        InputError: If the attack gave images of another shape.
    """
    for attacked in adversarial:
        if attacked.shape != images.shape:
            raise InputError(f"The attack {attack!r} gave {tuple(attacked.shape)} of images {tuple(images.shape)}.")
    distances = []
    for value, of_budget in zip(eps, moved(images, adversarial, float(attack.norm))):
        is_in_range = (of_budget.lowest >= CLIP_MIN) & (of_budget.highest <= CLIP_MAX)
        rounding = 2**-24 * of_budget.n_moved ** (1 / float(attack.norm))
        is_within = of_budget.distance(float(attack.norm)) <= value * (1 + 1e-6) + rounding
        distances.append(Distances(of_budget.linf, of_budget.l2, is_within & is_in_range))
    return distances


def check_budget(attack: Attack, images: Tensor, adversarial: Tensor, eps: float) -> Distances:
    """How far an attack moved each image, see :func:`distances_of`; reads whether that is within its bounds.

    Raises:
        InputError: If it is not, or the attack gave images of another shape.
    """
    (distances,) = distances_of(attack, images, [adversarial], [eps])
    if not distances.is_within.all():
        raise left_bounds(attack, images, adversarial, eps)
    return distances


def left_bounds(attack: Attack, images: Tensor, adversarial: Tensor, eps: float) -> InputError:
    """The error of an attack that left its bounds."""
    delta = (where_float64_is(adversarial).double() - where_float64_is(images)).flatten(1)
    distance = told_from(float(torch.linalg.vector_norm(delta, float(attack.norm), 1).max()), eps, form=".6g")
    return InputError(
        f"The attack {attack!r} left its bounds: with eps {format_eps(eps)}{_in_digits(eps)} it moved an image by "
        f"{distance} (norm {attack.norm}), to pixels in {_range(adversarial)}."
    )


def at_even_odds(logits: Tensor, target: Tensor) -> Tensor:
    """The logits with that of ``target`` shifted, by a constant, to where its probability is 1/2."""
    column = target[:, None]
    others = logits.scatter(1, column, -math.inf).logsumexp(1, keepdim=True)
    return logits.scatter_add(1, column, (others - logits.gather(1, column)).detach())


@contextmanager
def float32_gradients(device: torch.device) -> Iterator[None]:
    """Gradients can be had inside, without autocast."""
    with gradients_enabled(), torch.autocast(device.type, enabled=False):
        yield


def check_norm(norm: str | int, known: Sequence[str | int]) -> None:
    if norm not in known:
        raise InputError(f"norm must be one of {', '.join(map(str, known))}, got {norm!r}.")


def checked(attack: Attack, network: Any, images: Any, target: Any, eps: Any) -> tuple[Network, Tensor, Tensor, float]:
    """What somebody gave an attack, the images within [0, 1] to the last bit and the classes long ``(N,)``.

    Raises:
        InputError: If something cannot be used; says what would be right.
    """
    check_network(network)
    check_attackable(network)
    check_images(images, network.mean, network.dtype)
    classes = target_classes(target, network.class_names, len(images))
    if classes is None:
        raise InputError("An attack needs a target: the classes to lead away from or, if it is targeted, to.")
    if parse_eps(eps):
        eps = parse_sweep([eps], attack.norm)[0]
    classes = torch.as_tensor(classes).to(images.device).expand(len(images))
    # A clone, since autograd cannot keep a tensor that was made under inference mode.
    return network, without_rounding(images.detach()), classes.clone(), float(eps)


def check_attackable(network: Network) -> None:
    """Refuses a network of labels of which an image may have several: no attack here leads from or to such.

    Raises:
        InputError: If it is one.
    """
    if network.outputs == "independent":
        raise InputError(
            f"{network.name} has independent labels (model.outputs), and attacks lead from one class to another, by "
            "the cross-entropy of a softmax. Attack a network of one class an image."
        )


def without_rounding(images: Tensor) -> Tensor:
    """The images, where rounding took a pixel beyond [0, 1] at that end; what lies farther out stays."""
    clamped = images.clamp(CLIP_MIN, CLIP_MAX)
    return clamped.where((clamped - images).abs() <= ROUNDING, images)


def only_in_range(images: Tensor) -> Tensor:
    """The images, but NaN in place of each that has pixels outside [0, 1]."""
    return replaced(without_rounding(images), ~are_pixels(images), torch.nan)


def _range(images: Tensor) -> str:
    """The least and the greatest pixel, so that they can be told from the bounds that they leave."""
    least, greatest = (told_from(float(value), CLIP_MIN, CLIP_MAX) for value in (images.min(), images.max()))
    return f"[{least}, {greatest}]"


def _in_digits(eps: float) -> str:
    """Of a fraction, what it comes to."""
    return f" = {float(eps):.6g}" if "/" in format_eps(eps) else ""
