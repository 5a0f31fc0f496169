"""What the numbers mean that a module gives: logits, probabilities, the one logit of a yes or no, or one a label."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_modules.errors import InputError, check_is_one_of, told_from

OutputKind = Literal["logits", "probabilities", "binary", "independent"]

_ENDS_IN_PROBABILITIES = {"SoftmaxBackward0": "a softmax", "SigmoidBackward0": "a sigmoid"}
_MOVES_NUMBERS = re.compile(r"(Reshape|View|Squeeze|Unsqueeze|Clone|Alias|T|ToCopy|ReshapeAlias|UnsafeView)Backward\d")


def tensor_of(output: Any) -> Any:
    """The ``logits`` of an output that has such, as transformers' models give; any other as it is."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output


def as_logits(output: Any, kind: OutputKind) -> Tensor:
    """What a module gives, as logits ``(N, n_classes)``.

    Args:
        output: ``(N, n)``, or what has it as ``logits``.
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
    output = tensor_of(output)
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


def output_kind(outputs: Tensor, given: OutputKind | None, name: str, ends_in: str | None) -> OutputKind:
    """What the numbers mean, by what the user sets and what they look like.

    Args:
        outputs: Of several images, ``(N, n)``.
        given: By the user; None = not set.
        name: What messages call the network.
        ends_in: What makes the numbers probabilities, in words; None = nothing that is known to.

    Raises:
        InputError: If they look like probabilities, or there is one an image, and the user has not set what they are;
            or if what is set does not fit.
    """
    if given is not None:
        check_is_one_of(OutputKind, **{"model.outputs": given})
    n, is_sigmoid = outputs.shape[1], ends_in == "a sigmoid"
    look_like_probabilities = bool(((outputs >= 0) & (outputs <= 1)).all())
    sums = outputs.sum(1)
    sum_to_one = n > 1 and look_like_probabilities and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    softmax_remedy = (
        "Remove that end, or set model.outputs probabilities, to take their logarithm, or logits, if they are logits"
    )
    sigmoid_remedy = "Remove the sigmoid, so that it gives logits, and set model.outputs independent"
    end = f"ends in {ends_in}" if ends_in else f"gives {n} numbers an image" if n > 1 else "gives one number an image"
    least, greatest = (told_from(float(value), 0, 1) for value in (outputs.min(), outputs.max()))
    refused: dict[OutputKind | None, list[tuple[Any, str]]] = {
        None: [
            (
                n == 1 and not ends_in,
                f"{end}, so its softmax is 1. If it is the logit of yes, set model.outputs binary",
            ),
            (n > 1 and is_sigmoid, f"{end}: the probabilities of {n} labels of their own. {sigmoid_remedy}"),
            (ends_in, f"{end}: its output is probabilities, and logits are explained. {softmax_remedy}"),
            (sum_to_one, f"gives rows that are at least 0 and sum to 1: probabilities. {softmax_remedy}"),
        ],
        "binary": [
            (n > 1, f"{end}, and model.outputs binary is of one logit an image"),
            (ends_in, f"{end}, so it gives no logit: set model.outputs probabilities"),
        ],
        "independent": [
            (n == 1, f"{end}, and model.outputs independent is of several labels. Set model.outputs binary"),
            (ends_in, f"{end}, and model.outputs independent is of logits. Remove that end"),
        ],
        "probabilities": [
            (n > 1 and is_sigmoid, f"{end}: {n} labels of their own, whose logarithms are no logits. {sigmoid_remedy}"),
            (not look_like_probabilities, f"gives numbers from {least} to {greatest}: no probabilities"),
        ],
        "logits": [(n == 1, f"{end}. Set model.outputs binary")],
    }
    for is_wrong, why in refused[given]:
        if is_wrong:
            raise InputError(f"model.network: {name} {why}.")
    return given or "logits"


def last_activation(output: Tensor) -> str | None:
    """``a softmax`` or ``a sigmoid``, if that is the last that was done to an output with a graph; else None."""
    node = output.grad_fn
    while node is not None and _MOVES_NUMBERS.fullmatch(node.name()):
        node = node.next_functions[0][0]
    return None if node is None else _ENDS_IN_PROBABILITIES.get(node.name())
