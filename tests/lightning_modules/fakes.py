"""A device that is not there: shapes and devices are computed as on it, and values are not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_map_only

from lightning_modules import random_numbers

DEVICES = ("cuda", "meta")
"""Between them they see every operation. On ``cuda`` all is as on a GPU, but for PyTorch's engine of gradients, which
does not run without one: it is asked, and gives gradients of the right shape and device. On ``meta`` it runs, but there
is no autocast."""


class FakeDevice:
    """What moves tensors and modules to a device that is not there.

    An operation on tensors of two devices raises, as it would there, and so does whatever wants to know a value.
    """

    def __init__(self, name: str, mode: FakeTensorMode) -> None:
        self.name = name
        self.mode = mode

    def moved(self, tree: Any) -> Any:
        """A nest, or a module, with its tensors on the device."""
        if isinstance(tree, nn.Module):
            torch.__future__.set_overwrite_module_params_on_conversion(True)
            try:
                return tree._apply(self._moved)
            finally:
                torch.__future__.set_overwrite_module_params_on_conversion(False)
        return tree_map_only(Tensor, self._moved, tree)

    def _moved(self, tensor: Tensor) -> Tensor:
        return self.mode.from_tensor(tensor).to(self.name)


@contextlib.contextmanager
def fake_device(name: str) -> Iterator[FakeDevice]:
    """A device of this name, one of :data:`DEVICES`, for what runs inside."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode() as mode:
        patch.setattr(random_numbers, "_normal_values", random_numbers._normal_values.__wrapped__)  # keeps nothing fake
        if name == "cuda":
            patch.setattr(torch.autograd, "_engine_run_backward", _gradients_of_nothing)
        else:
            patch.setattr(torch, "is_autocast_enabled", lambda device: False)
            patch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())
        yield FakeDevice(name, mode)


def _gradients_of_nothing(outputs: Any, *args: Any, accumulate_grad: bool, **options: Any) -> Any:
    """What the engine of gradients gives, without going the way back."""
    inputs = args[3]
    if not accumulate_grad:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    for leaf in _leaves(tuple(tensor.grad_fn for tensor in outputs)):
        leaf.grad = torch.zeros_like(leaf)
    return None


def _leaves(nodes: Any) -> list[Tensor]:
    """The tensors that a graph of operations begins with."""
    found, seen, left = [], set(), list(nodes)
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        left += [following for following, _ in node.next_functions]
    return found


class ReadOnHost(Exception):
    """What is computed on the device is complete, and is to be read: by no device that is not there.

    Attributes:
        devices: Where the tensors lie.
    """

    def __init__(self, tree: Any) -> None:
        devices: set[str] = set()
        tree_map_only(Tensor, lambda tensor: devices.add(tensor.device.type), tree)
        super().__init__(f"read from {', '.join(sorted(devices))}")
        self.devices = devices


def raise_read(tree: Any) -> Any:
    """Stands in for ``on_host``."""
    raise ReadOnHost(tree)
