"""What is read from a device, without waiting for it more than once, and what some devices leave to the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

TreeT = TypeVar("TreeT")


def has_float64(tensor: Tensor) -> bool:
    """Whether its device computes in float64, which Apple's GPU does not."""
    return tensor.device.type != "mps"


def where_float64_is(tensor: Tensor) -> Tensor:
    """The tensor, or a copy on the host, if its device has no float64. What is made of it lies there too."""
    return tensor if has_float64(tensor) else tensor.cpu()


def replaced(images: Tensor, is_replaced: Tensor, by: Tensor | float) -> Tensor:
    """Images with something else in place of some of them.

    Args:
        images: ``(N, C, H, W)``.
        is_replaced: Which, bool ``(N,)``.
        by: What stands in their place: images like these, or a number.

    Example:
        >>> images = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
        >>> replaced(images, torch.tensor([False, True]), 0.5).flatten()
        tensor([1.0000, 0.5000])
    """
    return torch.where(is_replaced.to(images.device).view(-1, 1, 1, 1), by, images)


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
