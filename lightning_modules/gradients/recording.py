"""What layers give while a network runs once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.gradients.needs import Needs
from lightning_modules.networks.network import Network
from lightning_modules.networks.observed.facts import split_call
from lightning_modules.networks.observed.observation import hooked_outputs


def with_labels(needs: Needs, network: Network) -> Needs:
    """The needs with the layers under their labels, however they were named.

    Raises:
        InputError: If there is no such layer.
    """
    if not needs.layers:
        return needs
    activations, gradients = (
        frozenset(map(network.label, layers)) for layers in (needs.activations, needs.layer_gradients)
    )
    return replace(needs, activations=activations, layer_gradients=gradients)


@contextmanager
def recorded(network: Network, needs: Needs) -> Iterator[dict[str, Tensor]]:
    """Keeps the outputs of the layers needed while the network runs, in the dict that it yields.

    Where the graph has not begun, as nothing before needs a gradient, it begins at the output.
    """
    labels: dict[str, dict[int, str]] = {}
    for label in needs.layers:
        name, number = split_call(label)
        labels.setdefault(name, {})[number] = label
    activations: dict[str, Tensor] = {}
    n_calls: Counter[str] = Counter()

    def keep(name: str, output: Any) -> Tensor | None:
        label = labels[name].get(n_calls[name])
        n_calls[name] += 1
        if label is None:
            return None
        if not isinstance(output, Tensor):
            raise InputError(f"Layer {label!r} gives a {type(output).__name__}, not a tensor; name another layer.")
        begins = label in needs.layer_gradients and output.is_floating_point() and not output.requires_grad
        activations[label] = output.detach().requires_grad_() if begins else output
        # The layers after it get a copy: one that works in place would overwrite what is kept.
        return activations[label].clone()

    layers = network.layers
    with hooked_outputs({name: layers[name] for name in labels}, keep):
        yield activations
    if idle := sorted(needs.layers - activations.keys()):
        raise InputError(f"{network.name} has the layer {idle[0]!r}, but does not call it, or not in this thread.")
