"""The gradient that rectifiers give, chosen at the time of the backward pass: the true one or the guided one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.networks.nonlinearities import (
    Nonlinearities,
    activations_between,
    counted,
    cut_of,
    operator_of,
)

Gradients = tuple[Tensor | None, ...]


class RectifierRule:
    """Which gradient the rectifiers of a pass give: the true one or, inside ``guided()``, the guided one.

    The forward runs as it is. Afterwards the rule hooks the nodes that rectifiers left in the graph, whatever they were
    called by; the hooks are gone with the graph.
    """

    def __init__(self) -> None:
        self.is_guided = False

    @contextmanager
    def guided(self) -> Iterator[None]:
        self.is_guided = True
        try:
            yield
        finally:
            self.is_guided = False

    def put_on(self, logits: Tensor, images: Tensor) -> Nonlinearities:
        """Puts the rectifiers between ``images`` and ``logits`` under the rule; gives what activations there are."""
        found = activations_between(logits, images)
        for node, kind, _ in found:
            if kind == "rectifiers":
                node.register_hook(self._ruled)
        return counted(found)

    def _ruled(self, gradients: Gradients, above: Gradients) -> Gradients | None:
        """The gradients that a rectifier's node gives, of the true ones and those that it was given.

        Where it is guided, ``R_in = (low < x < high) · (R_out > 0) · R_out``.
        """
        if not self.is_guided:
            return None
        # Not bound to the hook: a node that holds itself would keep the graph's memory until Python collects garbage.
        node: Any = torch._C._current_autograd_node()
        cut = cut_of(node)
        assert cut is not None
        gradient, whole = gradients[cut.operand], above[0]
        if gradient is None or whole is None:
            return None
        if gradient.shape == whole.shape:
            # Nobody else has it yet: the node has just made it.
            gradient.clamp_min_(0)
        else:  # of an operand that was broadcast
            gradient = whole.clamp_min(0)
        if operator_of(node) != "Relu":
            # Some let the gradient through where x is a bound, or half of it.
            x = node._saved_self if cut.operand == 0 else node._saved_other
            is_cut = x <= 0 if cut.high is None else (x <= 0) | (x >= cut.high)
            gradient.masked_fill_(is_cut, 0)
        gradient = gradient.sum_to_size(gradients[cut.operand].shape).to(gradients[cut.operand].dtype)
        return tuple(gradient if k == cut.operand else other for k, other in enumerate(gradients))


def check_guided_rule(found: Nonlinearities, name: str) -> None:
    """Tells where the rule of Guided Backpropagation says nothing of a part of a network's activations.

    Args:
        found: The network's activations.
        name: The network's name, for messages.

    Raises:
        InputError: If it says nothing of all of them.
    """
    undefined = [*found.others, *found.unknown]
    if undefined and not found.rectifiers:
        raise InputError(
            f"Guided Backpropagation is a rule for ReLUs, and {name} has none, but {', '.join(undefined)}: take "
            "Saliency, SmoothGrad or GradCAM in place of GuidedBackprop and GuidedGradCAM."
        )
    if undefined:
        warnings.warn(
            f"Guided Backpropagation is a rule for ReLUs: {name} follows it at {', '.join(found.rectifiers)}, but the "
            f"true gradient passes {', '.join(undefined)}, of which the rule says nothing.",
            stacklevel=1,  # one place for all callers, so that it is told once
        )
