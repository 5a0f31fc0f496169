"""From the device to the host: all that rows hold, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

TreeT = TypeVar("TreeT")


def on_host(tree: TreeT) -> TreeT:
    """A nest of dicts, lists and tuples with each tensor in it copied to the host, bit by bit.

    All tensors of a device are read as one, so a GPU is waited for once, and not for each of them.

    Example:
        >>> read = on_host({"eps": [0.1], "linf": torch.tensor([0.5]), "maps": (torch.tensor([True, False]),)})
        >>> read["eps"], read["linf"].tolist(), read["maps"][0].tolist()
        ([0.1], [0.5], [True, False])
    """
    leaves, structure = tree_flatten(tree)
    by_device: dict[torch.device, list[int]] = {}
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            by_device.setdefault(leaf.device, []).append(number)
    for numbers in by_device.values():
        for number, tensor in zip(numbers, _read_as_one([leaves[number] for number in numbers])):
            leaves[number] = tensor
    read: TreeT = tree_unflatten(leaves, structure)
    return read


def _read_as_one(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies on the host of tensors of any shapes and dtypes on one device."""
    flat = [tensor.detach().reshape(-1).contiguous().view(torch.uint8) for tensor in tensors]
    parts = torch.cat(flat).cpu().split([len(part) for part in flat])
    # Clones begin where any dtype may begin.
    return [part.clone().view(of.dtype).view(of.shape) for part, of in zip(parts, tensors)]
