"""The gradient that rectifiers give, chosen at the time of the backward pass: the true one or the guided one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointError

from lightning_modules.errors import InputError
from lightning_modules.gradients.needs import check_gradient
from lightning_modules.networks.network import Network
from lightning_modules.networks.observed.nonlinearities import (
    Nonlinearities,
    activations_between,
    counted,
    cut_of,
    in_words,
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
        """Puts the rectifiers between ``images``, which require a gradient, and ``logits`` under the rule.

        Gives what activations there are.
        """
        found = activations_between(logits, images)
        for activation in found:
            if activation.kind == "rectifiers":
                activation.node.register_hook(self._ruled)
        return counted(found)

    def _ruled(self, gradients: Gradients, above: Gradients) -> Gradients | None:
        """The gradients that a rectifier's node gives, of the true ones and those that it was given.

        Where it is guided, ``R_in = (0 < x < high) · (R_out > 0) · R_out``.
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
        shape, dtype = gradient.shape, gradient.dtype
        if shape == whole.shape:
            # Nobody else has it yet: the node has just made it.
            gradient.clamp_min_(0)
        else:  # of an operand that was broadcast
            gradient = whole.clamp_min(0)
        if operator_of(node) != "Relu":
            # Some let the gradient through where x is a bound, or half of it.
            x = _saved(node, cut.operand)
            is_cut = x <= 0 if cut.high is None else (x <= 0) | (x >= cut.high)
            gradient.masked_fill_(is_cut, 0)
        gradient = gradient.sum_to_size(shape).to(dtype)
        return tuple(gradient if k == cut.operand else other for k, other in enumerate(gradients))


def _saved(node: Any, operand: int) -> Tensor:
    """What a rectifier was given.

    Raises:
        InputError: If that cannot be had.
    """
    try:
        x: Tensor = node._saved_self if operand == 0 else node._saved_other
    except CheckpointError as error:
        raise InputError(
            f"Guided Backpropagation cannot see what {operator_of(node)} is given inside torch.utils.checkpoint: "
            "switch checkpoints off, or write nn.ReLU there."
        ) from error
    return x


def check_guided_rule(network: Network) -> None:
    """Refuses a network that has no activation for which Guided Backpropagation has a rule.

    Raises:
        InputError: If it has activations, but no rectifier. A linear network is fine.
    """
    check_gradient(network)
    found = network.facts.nonlinearities
    if found.others and not found.rectifiers:
        raise InputError(
            f"Guided Backpropagation is a rule for ReLUs, and the activations of {network.name} are only "
            f"{in_words({**found.others, **found.unknown})}: take Saliency, SmoothGrad or GradCAM in place of "
            "GuidedBackprop and GuidedGradCAM."
        )


_warned: WeakKeyDictionary[Network, set[str]] = WeakKeyDictionary()
_warning = Lock()


def warn_without_rule(network: Network, found: Nonlinearities) -> None:
    """Warns, once a network, of its activations for which Guided Backpropagation has no rule.

    Args:
        network: Its activations when it was loaded count too.
        found: In a pass. Something may be hidden since: TorchScript is optimized when it has run a few times.
    """
    left = {**found.without_rule, **network.facts.nonlinearities.without_rule}
    with _warning:
        warned = _warned.setdefault(network, set())
        if left.keys() <= warned:
            return
        warned.update(left)
    warnings.warn(
        f"Guided Backpropagation is a rule for ReLUs. In {network.name} the true gradient passes {in_words(left)}, for "
        "which there is no rule, or which hides what it does.",
        stacklevel=3,
    )
