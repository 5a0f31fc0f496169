"""Which class of an image an attack leads away from or, if it is targeted, to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from datamodules.batch import ClassTable
from lightning_modules.attacks.base import Attack
from lightning_modules.errors import InputError
from lightning_modules.networks.class_names import TARGET_WORDS, find_target


def parse_target(target: str | int | None, attack: Attack, class_names: Sequence[str]) -> str | int:
    """What a person wrote as ``label``, ``predicted``, ``least_likely``, or the index of a class.

    Args:
        target: See :class:`~lightning_modules.RobustnessModule`.
        attack: Whether it is targeted decides what the target may be, and what it is if nobody says it.
        class_names: Names of the network's classes.

    Raises:
        InputError: If there is no such class, or it does not fit the attack.
    """
    if target is None and attack.targeted:
        ClassTable(class_names).warn_of_word("model.target", "null", TARGET_WORDS["least_likely"])
    if target is None:
        return "least_likely" if attack.targeted else "label"
    target = find_target(target, class_names, ("label", "predicted", "least_likely"))
    if target in ("label", "predicted"):
        if attack.targeted:
            raise InputError(
                f"model.target is {target}, but the attack is targeted: name the class to lead to, or least_likely."
            )
        return target
    if not attack.targeted:
        raise InputError(
            f"model.target is {target}, a class to lead to, but the attack leads away from a class: label or "
            "predicted. For the former, set model.attack.targeted to true."
        )
    return target


def classes_of(target: str | int, logits: Tensor, labels: Tensor) -> Tensor:
    """The class of each image that ``target``, as :func:`parse_target` gives it, means: long ``(N,)``."""
    if target == "label":
        return labels
    if target == "predicted":
        return logits.argmax(1)
    if target == "least_likely":
        return logits.argmin(1)
    return torch.full_like(logits.argmax(1), int(target))
