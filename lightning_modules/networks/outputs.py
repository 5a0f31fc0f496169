"""What the numbers mean that a module gives: logits, probabilities, the one logit of a yes or no, or one a label."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightning_modules.errors import InputError, told_from

OutputKind = Literal["logits", "probabilities", "binary", "independent"]

_ENDS_IN_PROBABILITIES = {"SoftmaxBackward0": "softmax", "SigmoidBackward0": "sigmoid"}
_CHANGES_NO_NUMBER = frozenset(
    f"{name}Backward{number}"
    for name in (
        "View",
        "Reshape",
        "ReshapeAlias",
        "UnsafeView",
        "Squeeze",
        "Unsqueeze",
        "Clone",
        "Alias",
        "T",
        "ToCopy",
    )
    for number in (0, 1, 2)
)


def as_logits(output: Tensor, kind: OutputKind) -> Tensor:
    """What a module gives, as logits ``(N, n_classes)``.

    Args:
        output: ``(N, n)``.
        kind: ``logits`` stay. Of ``probabilities`` the logarithm is taken, whose softmax they are, if they sum to 1; a
            single one, of yes, makes those of no and yes. ``binary``, the one logit ``z`` of yes, makes ``-z/2`` and
            ``z/2``, whose softmax is the sigmoid of ``z``. ``independent``, the logits of labels of which an image may
            have several, stay; their probabilities are sigmoids.

    Example:
        >>> as_logits(torch.tensor([[0.25, 0.75]]), "probabilities").softmax(1)
        tensor([[0.2500, 0.7500]])
        >>> as_logits(torch.tensor([[2.0]]), "binary")
        tensor([[-1.,  1.]])
    """
    if kind == "binary":
        return torch.cat([-output / 2, output / 2], 1)
    if kind == "probabilities":
        if output.shape[1] == 1:
            output = torch.cat([1 - output, output], 1)
        # A probability that was rounded to 0 would give an infinite logit.
        return output.clamp_min(torch.finfo(output.dtype).tiny).log()
    return output


def probabilities_of(logits: Tensor, kind: OutputKind) -> Tensor:
    """The probabilities of the classes: the softmax of logits ``(N, n_classes)``; of independent ones the sigmoids."""
    return logits.sigmoid() if kind == "independent" else logits.softmax(1)


def check_kind(kind: Any) -> None:
    """Refuses what is no kind of output.

    Raises:
        InputError: If it is none.
    """
    if kind is not None and kind not in get_args(OutputKind):
        raise InputError(f"model.outputs should be one of {', '.join(get_args(OutputKind))}, got {kind!r}.")


def check_shape(output: Any, name: str, n_images: int) -> Tensor:
    """The output, if it is of one row an image.

    Raises:
        InputError: If it is something else; says what it is and what to do.
    """
    wanted = f"model.network: {name} should give logits (N, n_classes)"
    if isinstance(output, Tensor):
        shape = tuple(output.shape)
        if output.ndim == 2 and len(output) == n_images and output.is_floating_point() and output.shape[1]:
            return output
        if not output.is_floating_point():
            raise InputError(f"{wanted}, but gives {output.dtype} {shape}: classes without their logits.")
        if shape == (n_images,):
            raise InputError(
                f"{wanted}, but gives {shape}, one number an image. Give (N, 1), with model.outputs binary."
            )
        dense = ": logits of each pixel, as for segmentation" if output.ndim == 4 else ""
        raise InputError(f"{wanted}, but gives {shape} for {n_images} images{dense}.")
    given = f"a {type(output).__name__}"
    if isinstance(output, dict) or hasattr(output, "keys"):
        given += f" of {', '.join(map(str, list(output.keys())[:6]))}"
    elif isinstance(output, tuple | list):
        given += f" of {len(output)}"
    raise InputError(f"{wanted}, but gives {given}. Wrap it in a module whose forward returns the logits alone.")


_LEAVE_OUT = "Leave the sigmoid out, so that it gives logits, and say model.outputs independent."


def known_kind(outputs: Tensor, said: OutputKind | None, name: str, ends_in: str | None) -> OutputKind:
    """What the numbers mean, by what the user says and what they look like.

    Args:
        outputs: Of several images, ``(N, n)``.
        said: What the user says; None = nothing.
        name: What messages call the network.
        ends_in: What makes the numbers probabilities, in words; None = nothing that is known to.

    Raises:
        InputError: If they look like probabilities, or there is one an image, and nobody says what they are; or if
            what is said does not fit.
    """
    network, n = f"model.network: {name}", outputs.shape[1]
    has_several = n > 1 and ends_in is not None and ends_in.startswith("a sigmoid")
    look_like_probabilities = bool(((outputs >= 0) & (outputs <= 1)).all())
    if said is None and n == 1 and ends_in is None:
        raise InputError(
            f"{network} gives one number an image, so its softmax is 1 for each. If it is the logit of yes, say "
            "model.outputs binary, which makes two classes of it."
        )
    if said is None:
        sums = outputs.sum(1)
        sum_to_one = n > 1 and look_like_probabilities and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
        if ends_in is None and not sum_to_one:
            return "logits"
        if has_several:
            raise InputError(f"{network} ends in {ends_in}: the probabilities of {n} labels of their own. {_LEAVE_OUT}")
        why = f"ends in {ends_in}" if ends_in else "gives rows that are at least 0 and sum to 1"
        raise InputError(
            f"{network} {why}: these are probabilities, and what is explained here are logits. Leave that end out, or "
            "say model.outputs probabilities, which takes their logarithm (or model.outputs logits, if they are)."
        )
    if said == "binary" and (n != 1 or ends_in):
        got = f"ends in {ends_in}: say model.outputs probabilities" if n == 1 else f"gives {n} numbers an image"
        raise InputError(f"model.outputs is binary, one logit an image, but {name} {got}.")
    if said == "independent" and (n == 1 or ends_in):
        remedy = "Say model.outputs binary" if n == 1 else "Leave that end out, so that it gives logits"
        got = f"ends in {ends_in}" if ends_in else "gives one"
        raise InputError(f"model.outputs is independent, the logits of several labels, but {name} {got}. {remedy}.")
    if said == "probabilities" and has_several:
        raise InputError(
            f"model.outputs is probabilities, of which one class is true, but {name} ends in {ends_in}: {n} labels of "
            f"their own, whose logarithms are no logits. {_LEAVE_OUT}"
        )
    if said == "logits" and n == 1:
        raise InputError(f"model.outputs is logits, but {name} gives one number an image. Say model.outputs binary.")
    if said == "probabilities" and not look_like_probabilities:
        raise InputError(
            f"model.outputs is probabilities, but {name} gives numbers from "
            f"{told_from(float(outputs.min()), 0, 1)} to {told_from(float(outputs.max()), 0, 1)}."
        )
    return said


def last_activation(output: Tensor) -> str | None:
    """``softmax`` or ``sigmoid``, if that is the last that was done to an output with a graph; else None."""
    node = output.grad_fn
    while node is not None and type(node).__name__ in _CHANGES_NO_NUMBER:
        node = node.next_functions[0][0]
    return None if node is None else _ENDS_IN_PROBABILITIES.get(type(node).__name__)
