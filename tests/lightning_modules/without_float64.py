"""A device without float64, as Apple's GPU, imitated on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_modules import host, random_numbers
from tests.lightning_modules.waits import put_on_device

TO_HOST = ("cpu", "numpy", "tolist", "__array__")


def _is_far(tree: Any) -> bool:
    return any(isinstance(leaf, Tensor) and getattr(leaf, "is_far", False) for leaf in tree_leaves(tree))


def _refuse_float64(tree: Any, name: str) -> None:
    if any(isinstance(leaf, Tensor) and leaf.dtype == torch.float64 for leaf in tree_leaves(tree)):
        raise TypeError(f"{name}: the MPS framework doesn't support float64")


class _Operations(TorchDispatchMode):
    """What is made of tensors on the device lies there too, and is no float64; nor do tensors on the host go in."""

    def __init__(self, is_strict: bool) -> None:
        super().__init__()
        self.is_strict = is_strict

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if not _is_far((args, kwargs)):
            return func(*args, **kwargs)
        near = [of for of in tree_leaves(args) if isinstance(of, Tensor) and of.ndim and not _is_far(of)]
        # What the graph keeps comes back unmarked in a backward pass.
        if near and self.is_strict and name not in ("copy_", "_to_copy") and torch._C._current_graph_task_id() == -1:
            raise RuntimeError(f"{name}: Expected all tensors to be on the same device")
        found = func(*args, **kwargs)
        _refuse_float64(found, name)
        return put_on_device(found)


class _Methods(TorchFunctionMode):
    """Marks what is made on the device, or moved there, by its name; and lets copies go to the host."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name in TO_HOST and _is_far(args):
            with torch.utils._python_dispatch._disable_current_modes():
                found = func(*args, **kwargs)
            if isinstance(found, Tensor):
                found = found.clone()
                found.is_far = False  # type: ignore[attr-defined]
            return found
        is_moved = isinstance(kwargs.get("device"), torch.device) or any(isinstance(of, torch.device) for of in args)
        found = func(*args, **kwargs)
        if is_moved or (name == "to" and _is_far(args[1:])) or (name == "new_tensor" and _is_far(args)):
            _refuse_float64(found, name)
            found = put_on_device(found.clone() if name == "to" else found)
        return found


def _read_one_by_one(tensors: Any) -> Any:
    """Reads tensors of both places, which the imitation alone cannot tell by their devices."""
    return [tensor.detach().cpu() for tensor in tensors]


@contextmanager
def without_float64(is_strict: bool = True) -> Iterator[None]:
    """Tensors that :func:`put_on_device` marked lie, inside, on a device that has no float64.

    Args:
        is_strict: Whether an operation on tensors of two places is refused. Copies of a network lose their marks.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_numbers, "_normal_values", random_numbers._normal_values.__wrapped__)
        patch.setattr(host, "has_float64", lambda tensor: not _is_far(tensor))
        patch.setattr("lightning_modules.host._read_as_one", _read_one_by_one)
        with _Methods(), _Operations(is_strict):
            yield
