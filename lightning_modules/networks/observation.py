"""What a network shows when it runs: the outputs of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock, RLock
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.nonlinearities import Nonlinearities, nonlinearities_of

Look = Callable[[str, Any], Any]
"""(name of a layer, its output) -> what the layers after it get in its place; None leaves it."""


_pass: ContextVar[object] = ContextVar("_pass", default=None)
"""Whose pass runs: that of the innermost ``looked_at``. Each thread has its own."""

_hooking = Lock()
"""PyTorch numbers hooks without a lock: two threads at once may get one number, and one hook would take the other's
place."""

_setting_eval_mode = RLock()


@contextmanager
def looked_at(layers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """While it lasts, ``look`` is called with the name and the output of each of ``layers`` as it ends.

    The only place that hooks layers. The hooks are gone afterwards, also after an exception. Hooks stand in the layers,
    which other threads may be running too, and so may a pass within this one: ``look`` sees the calls of its own pass
    alone.
    """
    own = object()

    def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        return lambda module, args, output: look(name, output) if _pass.get() is own else None

    handles = []
    outer = _pass.set(own)
    try:
        for name, layer in layers.items():
            with _hooking:
                handles.append(layer.register_forward_hook(hook(name)))
        yield
    finally:
        _pass.reset(outer)
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


def observed_nonlinearities(module: nn.Module, size: int) -> Nonlinearities:
    """The activations that two random images meet in ``module``, which is left as it was.

    Args:
        module: Maps images ``(N, 3, H, W)`` to logits.
        size: Height and width of the images in pixels.
    """
    like = next(module.parameters(), torch.empty(0))
    with _in_eval_mode(module), torch.inference_mode(False), torch.enable_grad():
        noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        images = noise.to(like if like.is_floating_point() else like.device).requires_grad_()
        # Optimized TorchScript hides its operators.
        with torch.random.fork_rng(devices=[]), torch.jit.optimized_execution(False):
            return nonlinearities_of(module(images), images)


@contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Looking at a network in training mode would change its running statistics.

    One thread at a time: another one would take what this one set for the module's own mode.
    """
    with _setting_eval_mode:
        training = [part for part in module.modules() if part.training]
        for part in training:
            part.training = False
        try:
            yield
        finally:
            for part in training:
                part.training = True
