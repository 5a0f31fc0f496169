"""Which activations an image meets in a network, read from the graph that a forward pass leaves for autograd.

What counts is the operator that ran, whatever called it: a module, a function, a method, TorchScript.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node, get_gradient_edge

Kind = Literal["rectifiers", "others", "unknown"]

ACTIVATIONS = {
    **{"Celu": "CELU", "Elu": "ELU", "Gelu": "GELU", "Glu": "GLU", "Hardshrink": "Hardshrink", "Mish": "Mish"},
    **{"Hardsigmoid": "Hardsigmoid", "Hardswish": "Hardswish", "LeakyRelu": "LeakyReLU", "LogSigmoid": "LogSigmoid"},
    **{"PreluKernel": "PReLU", "RreluWithNoise": "RReLU", "Sigmoid": "Sigmoid", "Silu": "SiLU", "Softplus": "Softplus"},
    **{"Softshrink": "Softshrink", "Tanh": "Tanh", "Erf": "Erf", "Abs": "Abs", "Sin": "Sin", "Cos": "Cos"},
    # With a bound that no rectifier has. ``maximum`` of two tensors may be a leaky ReLU written out.
    **{"Threshold": "Threshold", "Hardtanh": "Hardtanh", "Clamp": "Clamp", "ClampMin": "Clamp", "ClampMax": "Clamp"},
    **{"Maximum": "Maximum", "Fmax": "Maximum", "Minimum": "Minimum", "Fmin": "Minimum"},
}
"""Everyday names of activations, by the name of their operator."""

IN_STATISTICS = {"Exp": "Exp", "Pow": "Pow"}
"""Operators that are activations too, unless a sum or a mean follows, as in a softmax or a norm written out."""

SUMS = frozenset("AdaptiveAvgPool2D AvgPool2D LinalgVectorNorm Mean Norm Sum".split())

HIDDEN = {
    "CopySlices": "an operation in place on a view",
    "DifferentiableGraph": "optimized TorchScript",
    "CompiledFunction": "torch.compile",
}
"""What hides the operators inside, in words."""

NO_ACTIVATIONS = frozenset(
    # Linear in what they are given, or they only move it.
    "AccumulateGrad AdaptiveAvgPool2D AdaptiveAvgPool3D Add Addbmm Addcdiv Addcmul Addmm Addmv Addr AffineGridGenerator "
    "Alias AsStrided AvgPool2D AvgPool3D Baddbmm BackwardHookFunction Bmm Cat ChannelShuffle Chunk Clone Col2Im Conj "
    "ConstantPadNd ConvDepthwise2D Convolution Copy CudnnConvolution CudnnConvolutionTranspose Cumsum DiagEmbed "
    "Diagonal Div Dot Expand FftC2C FftC2R FftR2C Flip FusedDropout Gather GridSampler2D Im2Col Index IndexSelect Lerp "
    "LiftFresh Linear Matmul Mean MiopenConvolution MkldnnConvolution MkldnnLinear MkldnnReshape Mm MpsConvolution Mul "
    "Mv NarrowCopy NativeDropout Neg NegView Permute PinMemory PixelShuffle PixelUnshuffle ReflectionPad1D "
    "ReflectionPad2D Repeat ReplicationPad1D ReplicationPad2D ReshapeAlias ReshapeCopy Roll Rot90 Rsub Select Slice "
    "SlowConv2D SlowConvDilated2D SlowConvTranspose2D Split SplitWithSizes Squeeze Stack Sub Sum T Take ToCopy ToDense "
    "ToMkldnn Transpose Tril Triu Unbind Unfold UnsafeIndex UnsafeSplit UnsafeSplitWithSizes UnsafeView Unsqueeze "
    "UpsampleBicubic2D UpsampleBicubic2DAa UpsampleBilinear2D UpsampleBilinear2DAa UpsampleLinear1D UpsampleNearest1D "
    "UpsampleNearest2D UpsampleNearestExact2D View ViewAsComplex ViewAsReal "
    # Norms, and what they are written out by.
    "BatchNormNoUpdate BatchNormWithUpdate CudnnBatchNorm FusedRmsNorm LinalgVectorNorm MiopenBatchNorm NativeBatchNorm "
    "NativeBatchNormLegit NativeBatchNormLegitNoTraining NativeGroupNorm NativeLayerNorm Norm Reciprocal RmsNorm Rsqrt "
    "Sqrt Std StdMean Var VarMean "
    # Softmax, attention, and pooling.
    "AdaptiveMaxPool2D AdaptiveMaxPool3D Amax Amin CudnnAttention EfficientAttention FlashAttention "
    "FractionalMaxPool2D Log LogSoftmax Logsumexp MaskedSoftmax Max MaxPool2D MaxPool2DWithIndices "
    "MaxPool3DWithIndices Median Min MkldnnMaxPool2D SafeSoftmax ScaledDotProductCudnnAttention "
    "ScaledDotProductEfficientAttention ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu "
    "ScaledDotProductFusedAttentionOverrideable Softmax Sort Topk".split()
)
"""Operators that are known to be no activations. What stands neither here nor above is unknown."""

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
    """What lies between ``images``, which require a gradient, and ``logits``.

    The images should be random, two of them at least: an image of zeros makes masks constant.
    """
    return counted(activations_between(logits, images))


def counted(found: list[tuple[Node, Kind, str]]) -> Nonlinearities:
    """How many of each kind and name there are."""
    kinds: dict[Kind, Counter[str]] = {"rectifiers": Counter(), "others": Counter(), "unknown": Counter()}
    for _, kind, name in found:
        kinds[kind][name] += 1
    return Nonlinearities(**{kind: dict(names) for kind, names in kinds.items()})


def activations_between(logits: Tensor, images: Tensor) -> list[tuple[Node, Kind, str]]:
    """The nodes of all activations on the way from ``images`` to ``logits``, each with its kind and everyday name."""
    nodes = _nodes_between(logits, images)
    consumers: dict[Node, list[Node]] = defaultdict(list)
    for node in nodes:
        for before in _before(node):
            consumers[before].append(node)
    kinds = ((node, _kind(node, consumers[node])) for node in nodes)
    return [(node, *kind) for node, kind in kinds if kind is not None]


def _nodes_between(logits: Tensor, images: Tensor) -> list[Node]:
    """The nodes that lead from ``images`` to ``logits``, without those of the parameters' own gradients."""
    if not logits.requires_grad:
        return []
    leads = {get_gradient_edge(images).node: True}
    stack = [get_gradient_edge(logits).node]
    while stack:
        node = stack[-1]
        new = [] if node in leads else [before for before in _before(node) if before not in leads]
        if not new:
            stack.pop()
            leads[node] = leads.get(node) or any(leads[before] for before in _before(node))
        stack += new
    return [node for node, is_between in leads.items() if is_between]


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
    """The other one of two operands."""
    constant: Tensor = saved._saved_other if operand == 0 else saved._saved_self
    return constant


def _kind(node: Node, consumers: list[Node]) -> tuple[Kind, str] | None:
    """What activation a node is of, if any: its kind and its everyday name."""
    if isinstance(node, BackwardCFunction):
        # A function of somebody's own, which may be named like one of PyTorch's.
        name = operator_of(node)
        return None if name == "BackwardHookFunction" else ("unknown", HIDDEN.get(name, name))
    if (cut := cut_of(node)) is not None:
        return _kind_of_cut(node, cut, consumers)
    is_square = operator_of(node) == "Mul" and len(set(node.next_functions)) == 1
    name = "Pow" if is_square else operator_of(node)
    if name in IN_STATISTICS:
        is_summed = bool(consumers) and all(operator_of(after) in SUMS for after in consumers)
        return None if is_summed else ("others", IN_STATISTICS[name])
    if name in ACTIVATIONS:
        is_selu = name == "Elu" and math.isclose(getattr(node, "_saved_alpha", 1.0), SELU_ALPHA)
        return "others", "SELU" if is_selu else ACTIVATIONS[name]
    if name == "Mul" and _is_masked(node):
        return "unknown", "a product with a mask"
    return None if name in NO_ACTIVATIONS else ("unknown", HIDDEN.get(name, name))


def _kind_of_cut(node: Node, cut: Cut, consumers: list[Node]) -> tuple[Kind, str] | None:
    low, high = (_number(bound) for bound in cut[1:])
    if low == 0 and (high is None or high > 1):
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


def _is_masked(node: Node) -> bool:
    """Whether a product is with a constant of zeros and ones for each entry, as in ``x * (x > 0)``."""
    operand = _only_operand(node)
    if operand is None:
        return False
    mask = _constant(node, operand)
    if mask.dtype == torch.bool:
        return True
    # A factor for each channel is no mask of entries.
    is_of_entries = sum(length > 1 for length in mask.shape) > 1
    return is_of_entries and bool(((mask == 0) | (mask == 1)).all() & (mask == 0).any())
