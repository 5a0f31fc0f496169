"""What would wait on a GPU, counted on the CPU."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

COPIES = ("cpu", "numpy", "tolist", "__array__", "to")
"""Methods by which the values of a tensor come to the host, without an operation that a CPU would run."""

SIZES = ("_local_scalar_dense", "allclose", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2", "unique_dim")
"""Operations of which the host wants a number, or the size of what comes out."""


def put_on_device(tree: Any) -> Any:
    """Marks the tensors of a nest, or of a module, as lying on a device that is waited for; gives them back."""
    tensors = [*tree.parameters(), *tree.buffers()] if isinstance(tree, nn.Module) else tree_leaves(tree)
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            tensor.is_far = True  # type: ignore[attr-defined]
    return tree


def _is_far(tree: Any) -> bool:
    return any(isinstance(leaf, Tensor) and getattr(leaf, "is_far", False) for leaf in tree_leaves(tree))


class _Operations(TorchDispatchMode):
    """What is made of tensors on the device lies there too; where the host wants to know of one, it waits."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_far((args, kwargs)):
            name = func.overloadpacket.__name__
            by_mask = name in ("index", "index_put", "index_put_") and any(
                isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1]
            )
            repeats = name == "repeat_interleave" and kwargs.get("output_size") is None
            if name in SIZES or by_mask or repeats:
                self.waits.append(_place(name))
            return put_on_device(func(*args, **kwargs))
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    """Notes the copies to the host, which lie there then."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        # The device of another tensor is no word, and on a GPU would be the GPU.
        is_copy = name in COPIES and (name != "to" or any(isinstance(of, str) for of in (*args[1:2], *kwargs.values())))
        if not (is_copy and _is_far(args)):
            return func(*args, **kwargs)
        self.waits.append(_place(name))
        found = func(*args, **kwargs)
        if isinstance(found, Tensor):
            found = found.clone()
            found.is_far = False
        return found


def _place(name: str) -> str:
    frames = [frame for frame in traceback.extract_stack() if "lightning_modules" in frame.filename]
    ours = [frame for frame in frames if "tests" not in frame.filename]
    return f"{name}: " + " < ".join(f"{frame.filename}:{frame.lineno} {frame.line}" for frame in reversed(ours[-4:]))


@contextmanager
def waits_counted() -> Iterator[list[str]]:
    """The waits of what runs inside, in order: what was wanted and where."""
    waits: list[str] = []
    with _Methods(waits), _Operations(waits):
        yield waits
