"""Which activations an image meets in a network, read from the graph that a forward pass leaves for autograd.

What counts is the operator that ran, whatever called it: a module, a function, a method, TorchScript.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge

Kind = Literal["rectifiers", "others", "unknown"]

REENTRANT = "a reentrant checkpoint"

_OPERATORS = (
    "Clamp Cos Erf Hardshrink Hardsigmoid Hardswish Hardtanh LogSigmoid Maximum Minimum Mish Sigmoid Sin Softplus "
    "Softshrink Tanh Threshold Celu:CELU Elu:ELU Gelu:GELU Glu:GLU LeakyRelu:LeakyReLU PreluKernel:PReLU "
    "RreluWithNoise:RReLU Silu:SiLU ClampMin:Clamp ClampMax:Clamp Fmax:Maximum Fmin:Minimum"
)
ACTIVATIONS = {text.split(":")[0]: text.split(":")[-1] for text in _OPERATORS.split()}
"""Everyday names of activations that are no rectifiers, by the operator that ran."""

HIDDEN = {
    "CopySlices": "an operation in place on a view",
    "DifferentiableGraph": "optimized TorchScript",
    "CompiledFunction": "torch.compile",
    "CheckpointFunction": REENTRANT,
    "Where": "torch.where",
    "MaskedFill": "masked_fill",
    "Abs": "abs",
}
"""What hides the operators inside, or may be a part of a rectifier written out, in words."""

MASK = "a product with a mask"
SUMS = ("AdaptiveAvgPool2D", "AvgPool2D", "LinalgVectorNorm", "Mean", "Norm", "Sum")
SELU_ALPHA = 1.6732632423543772
LARGEST_GUARD = 1e-3
"""A minimum above 0 that is this small keeps a division or a root from failing, as in ``normalize``."""


@dataclass(frozen=True)
class Nonlinearities:
    """Activations between the pixels and the logits, by their everyday names, with how often each ran.

    Softmax of attention, norms and pooling are none. A network without any is linear in this sense.

    Attributes:
        rectifiers: Those that give 0 for what is not above 0 and let the rest through, some up to a maximum: ReLU,
            ReLU6, whatever they are called by.
        others: Activations that are no rectifiers: SiLU, GELU, the sigmoid of a gate, ...
        unknown: What hides its operators (a custom autograd function, optimized TorchScript), or may be an activation
            written out (``torch.where``).
    """

    rectifiers: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    @property
    def without_rule(self) -> dict[str, int]:
        """Those for which Guided Backpropagation has no rule, or may have one that cannot be followed."""
        return {**self.others, **self.unknown}


class Activation(NamedTuple):
    """An activation's node in the graph, its kind, and its everyday name."""

    node: Node
    kind: Kind
    name: str


class Cut(NamedTuple):
    """An operator that lets through what lies between two bounds, and has no gradient beyond.

    Attributes:
        operand: Which of its operands is cut.
        low: What lies below is cut; None = nothing does.
        high: What lies above is cut; None = nothing does.
    """

    operand: int
    low: float | Tensor | None
    high: float | Tensor | None


def nonlinearities_of(logits: Tensor, images: Tensor) -> Nonlinearities:
    """What lies between ``images``, which require a gradient, and ``logits``, the most frequent first.

    The images should be random: an image of zeros makes masks constant.
    """
    masks = [Activation(node, "unknown", MASK) for node in _nodes_between(logits, images) if _is_masked(node)]
    return counted([*activations_between(logits, images), *masks])


def activations_between(logits: Tensor, images: Tensor) -> list[Activation]:
    """All activations between ``images``, which require a gradient, and ``logits``, but for products with a mask.

    A mask differs from another factor in its values alone, and reading those would wait for the device.
    """
    nodes = _nodes_between(logits, images).items()
    found = ((node, _kind(node, consumers)) for node, consumers in nodes)
    return [Activation(node, *kind) for node, kind in found if kind is not None]


def counted(found: Sequence[Activation]) -> Nonlinearities:
    """How many of each kind and name there are."""
    kinds: dict[Kind, Counter[str]] = {"rectifiers": Counter(), "others": Counter(), "unknown": Counter()}
    for activation in found:
        kinds[activation.kind][activation.name] += 1
    return Nonlinearities(**{kind: dict(names.most_common()) for kind, names in kinds.items()})


def in_words(counts: Mapping[str, int]) -> str:
    """``SiLU, GELU and Sigmoid``: the most frequent first."""
    names = sorted(counts, key=counts.__getitem__, reverse=True)
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def _nodes_between(logits: Tensor, images: Tensor) -> dict[Node, list[Node]]:
    """The nodes that lead from ``images`` to ``logits``, each with those that take what it gives.

    Those of the parameters' own gradients are none of them.
    """
    if not logits.requires_grad:
        return {}
    leads = {get_gradient_edge(images).node: True}
    stack = [get_gradient_edge(logits).node]
    while stack:
        node = stack[-1]
        new = [] if node in leads else [before for before in _before(node) if before not in leads]
        if not new:
            stack.pop()
            leads[node] = leads.get(node) or any(leads[before] for before in _before(node))
        stack += new
    between: dict[Node, list[Node]] = {node: [] for node, is_between in leads.items() if is_between}
    for node in between:
        for before in _before(node):
            if before in between:
                between[before].append(node)
    return between


def _before(node: Node) -> Iterator[Node]:
    """The nodes of what was given to this one."""
    return (before for before, _ in node.next_functions if before is not None)


def operator_of(node: Node) -> str:
    """The name of the operator that left the node: ``Relu`` of ``ReluBackward0``."""
    return re.sub(r"Backwards?\d*$", "", node.name().rpartition("::")[2])


def cut_of(node: Node) -> Cut | None:
    """Where the operator of a node cuts its input, if that is what it does."""
    saved: Any = node
    match operator_of(node):
        case "Relu":
            return Cut(0, 0.0, None)
        case "LeakyRelu" if saved._saved_negative_slope == 0:
            return Cut(0, 0.0, None)
        case "Threshold":
            return Cut(0, saved._saved_threshold, None)
        case "Hardtanh":
            return Cut(0, saved._saved_min_val, saved._saved_max_val)
        case "Clamp":
            return Cut(0, saved._saved_min, saved._saved_max)
        case "ClampMin":
            return Cut(0, saved._saved_min, None)
        case "ClampMax":
            return Cut(0, None, saved._saved_max)
        case "Maximum" | "Fmax" if (operand := _only_operand(node)) is not None:
            return Cut(operand, _constant(saved, operand), None)
        case "Minimum" | "Fmin" if (operand := _only_operand(node)) is not None:
            return Cut(operand, None, _constant(saved, operand))
    return None


def _only_operand(node: Node) -> int | None:
    """Which of the operands has a gradient, if one alone has."""
    with_gradient = [k for k, (before, _) in enumerate(node.next_functions) if before is not None]
    return with_gradient[0] if len(with_gradient) == 1 else None


def _constant(saved: Any, operand: int) -> Tensor:
    """The other one of two operands; NaN where it was changed in place since, so that no gradient can be had."""
    try:
        constant: Tensor | float | None = saved._saved_other if operand == 0 else saved._saved_self
    except RuntimeError:
        constant = None
    return torch.as_tensor(torch.nan if constant is None else constant)


def _kind(node: Node, consumers: list[Node]) -> tuple[Kind, str] | None:
    """What activation a node is of, if any: its kind and its everyday name."""
    if isinstance(node, BackwardCFunction):
        # A function of somebody's own, which may be named like one of PyTorch's.
        name = operator_of(node)
        return None if name == "BackwardHookFunction" else ("unknown", HIDDEN.get(name, name))
    if (cut := cut_of(node)) is not None:
        return _kind_of_cut(node, cut, consumers)
    operands = node.next_functions  # one alone in a product with a number
    is_square = operator_of(node) == "Mul" and len(operands) == 2 and operands[0] == operands[1]
    name = "Pow" if is_square else operator_of(node)
    if name in ("Exp", "Pow"):  # also parts of a softmax or a norm written out, which sum them
        is_summed = bool(consumers) and all(operator_of(after) in SUMS for after in consumers)
        return None if is_summed else ("others", name)
    if name in ACTIVATIONS:
        is_selu = name == "Elu" and math.isclose(getattr(node, "_saved_alpha", 1.0), SELU_ALPHA)
        return "others", "SELU" if is_selu else ACTIVATIONS[name]
    return ("unknown", HIDDEN[name]) if name in HIDDEN else None


def _kind_of_cut(node: Node, cut: Cut, consumers: list[Node]) -> tuple[Kind, str] | None:
    low, high = (_number(bound) for bound in cut[1:])
    if low == 0 and high == 1 and _is_of_pixels(node):
        return None
    if low == 0 and (high is None or high > 0):
        if high is not None and _is_gate(node, consumers):
            return "others", "Hardsigmoid"
        return "rectifiers", "ReLU" if high is None else f"ReLU{high:g}"
    if low is not None and 0 < low <= LARGEST_GUARD and high is None:
        return None
    return "others", ACTIVATIONS[operator_of(node)]


def _number(bound: float | Tensor | None) -> float | None:
    """A bound as one number: None where there is none, NaN where it differs between entries."""
    if isinstance(bound, Tensor):
        values = bound.detach().flatten()
        bound = float(values[0]) if len(values) and bool((values == values[0]).all()) else math.nan
    return None if bound is None or abs(bound) == math.inf else float(bound)


def _is_gate(node: Node, consumers: list[Node]) -> bool:
    """Whether a ReLU6 is part of a hard sigmoid written out, ``relu6(x + 3) / 6``, and often multiplies by it."""
    before = next(_before(node), None)
    is_shifted = before is not None and operator_of(before) == "Add" and _only_operand(before) is not None
    return is_shifted and any(operator_of(after) in ("Mul", "Div") for after in consumers)


def _is_of_pixels(node: Node) -> bool:
    """Whether an operator is given the pixels themselves: a clamp to [0, 1] keeps them what they are."""
    before = list(_before(node))
    while len(before) == 1 and operator_of(before[0]) in ("Clone", "Div", "Sub", "ToCopy"):
        before = list(_before(before[0]))
    return len(before) == 1 and operator_of(before[0]) == "AccumulateGrad"


def _is_masked(node: Node) -> bool:
    """Whether a product is with a constant of zeros and ones for each entry, as in ``x * (x > 0)``."""
    operand = _only_operand(node)
    if operator_of(node) != "Mul" or operand is None:
        return False
    mask = _constant(node, operand)
    if mask.dtype == torch.bool:
        return True
    # A factor for each channel is no mask of entries.
    is_of_entries = mask.shape == tuple(node._input_metadata[0].shape)
    return is_of_entries and bool(((mask == 0) | (mask == 1)).all() & (mask == 0).any())
