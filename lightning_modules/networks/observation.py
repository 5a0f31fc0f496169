"""What a network shows when it runs: the outputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Look = Callable[[str, Any], Any]
"""(name of a layer, its output) -> what the layers after it get in its place; None leaves it."""


@contextmanager
def looked_at(layers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """While it lasts, ``look`` is called with the name and the output of each of ``layers`` as it ends.

    The only place that hooks layers. The hooks are gone afterwards, also after an exception.
    """

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda module, args, output: look(name, output)

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def observe(module: nn.Module, layers: Mapping[str, nn.Module], size: int) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """What ``module`` gives for an image of zeros, and the shape of each layer's output, without the batch.

    It runs in eval mode and leaves the module, and the random numbers, as they were. Layers that do not run, or give no
    tensor, are left out. Of one that runs several times the last call counts.

    Args:
        module: Maps images ``(N, 3, H, W)`` to anything.
        layers: Its layers, by name.
        size: Height and width of the image in pixels.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim > 1:
            shapes[name] = tuple(output.shape[1:])

    like = next(module.parameters(), torch.empty(0))
    with _in_eval_mode(module), looked_at(layers, look), torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = module(torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype))
    return output, shapes


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Looking at a network in training mode would change its running statistics."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
