"""What is maximized: objectives over a network's logits, or over the output of one of its layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor

from datamodules.text import Text
from lightning_modules.errors import InputError
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.networks.observed.facts import split_call
from lightning_modules.networks.observed.observation import hooked_outputs
from lightning_modules.text import NamedByOptions


class Objective(NamedByOptions, ABC):
    """What an objective is: a call from a layer's output and the units wanted to a number for each image.

    Example:
        >>> class Between(Objective):
        ...     def __init__(self, other: int) -> None:
        ...         self.other = other
        ...
        ...     def __call__(self, output, target):
        ...         return output.gather(1, target[:, None])[:, 0] + output[:, self.other]
        >>> Between(other=2)(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0]))
        tensor([5.])
    """

    layer: str | None = None
    """The layer whose output is judged; None = the logits. The units are then its channels, or the classes."""

    @abstractmethod
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """How much each image has of what is wanted, ``(N,)``.

        Args:
            output: What the layer gives: ``(N, C, h, w)``, or ``(N, C)`` as the logits are.
            target: The class or channel wanted in each image, long ``(N,)``.
        """


class ClassLogit(Objective):
    """The logit of the class, before the softmax, so that other classes cannot be pushed down instead.

    Reference: Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop.

    Example:
        >>> ClassLogit()(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0, 1]))
        tensor([1., 4.])
    """

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return output.gather(1, target[:, None])[:, 0]


class LogitMargin(Objective):
    """The logit of the class minus the others: what sets the class apart from them.

    Args:
        others: What is subtracted: the mean of the other logits, or their softmax-like maximum, ``logsumexp``, which
            gives the log odds of the class.

    Example:
        >>> LogitMargin(others="mean")(torch.tensor([[5.0, 1.0, 3.0]]), torch.tensor([0]))
        tensor([3.])
    """

    def __init__(self, others: Literal["mean", "logsumexp"] = "logsumexp") -> None:
        self.others = others

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        wanted = torch.zeros_like(output, dtype=torch.bool).scatter_(1, target[:, None], True)
        if self.others == "mean":
            others = output.masked_fill(wanted, 0).sum(1) / (output.shape[1] - 1)
        else:
            others = output.masked_fill(wanted, -torch.inf).logsumexp(1)
        return output.gather(1, target[:, None])[:, 0] - others


class Channel(Objective):
    """The mean of a channel over its positions; of a layer without positions, the unit itself.

    Args:
        layer: Name of the layer, such as features.28, or of one of its calls, such as layer1.0.relu@2.

    Example:
        >>> Channel("features.28")(torch.arange(8.0).view(1, 2, 2, 2), torch.tensor([1]))
        tensor([5.5000])
    """

    def __init__(self, layer: Text) -> None:
        self.layer = layer

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        units = output.flatten(2).mean(2) if output.ndim > 2 else output
        return units.gather(1, target[:, None])[:, 0]


class _Reached(Exception):
    """All that is asked for has been seen."""


def respond(network: Network, images: Tensor, layer: str | None) -> Tensor:
    """The output of a call of ``layer`` for ``images``, ``(N, C, h, w)`` or ``(N, C)``; None = of the network.

    The pass ends at the layer, so what lies above costs nothing.

    Raises:
        InputError: If there is no such layer, it is not said which of its calls is meant, or it has no channels.
    """
    return responses(network, images, [layer])[layer]


def responses(network: Network, images: Tensor, layers: Collection[str | None]) -> dict[str | None, Tensor]:
    """The outputs of calls of several layers, by the names they are asked for, of one pass; see :func:`respond`.

    Raises:
        InputError: If one cannot be had.
    """
    if set(layers) == {None}:
        with trusted():
            return {None: network(images)}
    layouts = {layer: network.layout(layer) for layer in layers if layer is not None}
    places = {layer: split_call(network.label(layer)) for layer in layouts}
    calls: Counter[str] = Counter()
    found: dict[str | None, Tensor] = {}

    def look(name: str, output: Any) -> None:
        here = [layer for layer, at in places.items() if at == (name, calls[name])]
        calls[name] += 1
        found.update({layer: layouts[layer].maps(output) for layer in here})
        if found.keys() == set(layers):
            raise _Reached
        found.update({layer: found[layer].clone() for layer in here})  # what follows may work in place

    with suppress(_Reached), hooked_outputs({name: network.layers[name] for name, _ in places.values()}, look):
        found[None] = network.uncompiled_logits(images)
    if idle := [layer for layer in layouts if layer not in found]:
        raise InputError(f"The network did not run the layer {idle[0]!r} this time.")
    return {layer: found[layer] for layer in layers}
