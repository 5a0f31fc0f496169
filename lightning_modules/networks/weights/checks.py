"""Whether a module's weights are those of a file, once it has loaded them: all set, once, to finite values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lightning_modules.networks.weights.files import WeightsError, some_of
from lightning_modules.networks.weights.names import Spelling
from lightning_modules.networks.weights.state_dicts import StateDict


def check_kinds(state: StateDict, tensors: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuses numbers that PyTorch would turn into others: fractions cut off, and quantized weights without scale.

    Args:
        state: What the file holds.
        tensors: The same under the module's names.
        expected: The module's own tensors.

    Raises:
        WeightsError: If there are such.
    """
    for name, tensor in tensors.items():
        own = expected.get(name)
        if not isinstance(tensor, Tensor) or not isinstance(own, Tensor) or name.endswith("num_batches_tracked"):
            continue
        if own.is_complex() or own.is_quantized:
            continue
        if own.is_floating_point() and not tensor.is_floating_point() and isinstance(own, nn.Parameter):
            raise WeightsError(
                f"{state.path} holds {name} as {_dtype(tensor)}, which is no weight: it may be quantized. Save it as "
                f"{_dtype(own)}."
            )
        if not own.is_floating_point() and not torch.equal(tensor.to(own.dtype).double(), tensor.double()):
            raise WeightsError(
                f"{state.path} holds {name} as {_dtype(tensor)}; the network's {_dtype(own)} cannot hold its values."
            )


def check_values(state: StateDict, spelled: Spelling, module: nn.Module, before: Mapping[str, Tensor | None]) -> None:
    """Refuses what is not finite, was not set, or was set twice.

    Args:
        state: What the file holds.
        spelled: The same under the module's names.
        module: The module after loading.
        before: Of each tensor :func:`copy_if_odd`, before loading.

    Raises:
        WeightsError: If there are such; names them.
    """
    now = {**dict(module.named_parameters(remove_duplicate=False)), **module.state_dict(keep_vars=True)}
    now = {name: tensor.detach() for name, tensor in now.items() if isinstance(tensor, Tensor) and not is_lazy(tensor)}
    given = spelled.tensors
    broken = [name for name, tensor in now.items() if not tensor.is_meta and not torch.isfinite(tensor).all()]
    broken = [name for name in broken if not _same(before.get(name), now[name])]
    if unset := [name for name in broken if name not in given and now[name].isnan().all()]:
        raise WeightsError(f"{state.path} leaves {some_of(unset)} of the network without values.")
    if large := [name for name in broken if name in given and torch.isfinite(given[name].double()).all()]:
        raise WeightsError(
            f"{state.path} has weights in {some_of(large)} that {_dtype(now[large[0]])}, the network's, cannot hold."
        )
    if broken:
        known = any(name.startswith("classifier.") for name in broken)
        raise WeightsError(
            f"{state.path} has NaN or infinite weights in {some_of(broken)}."
            + " torchvision's IMAGENET1K_FEATURES file is like that: it has no usable classifier. Use IMAGENET1K_V1."
            * known
        )
    # A name that is gone was renamed by the module's own code. Where another is not what the file said, it was
    # overwritten: by one that is gone, or by one that shares the tensor.
    gone = [name for name in given if name not in now and isinstance(given[name], Tensor)]
    shared = _shared(module)
    for name in given if gone else shared.keys() & given.keys():
        if name not in now or now[name].is_meta or _same(given[name], now[name]):
            continue
        for other in [*gone, *sorted(shared.get(name, set()) - {name})]:
            if _same(given.get(other), now[name]):
                raise WeightsError(
                    f"{state.path} holds {other} and {name}, which are one tensor of the network, with two values."
                )


def _shared(module: nn.Module) -> dict[str, set[str]]:
    """Of each tensor that has several names, all of them, by each."""
    names: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}


def _same(tensor: Any, own: Tensor) -> bool:
    """Whether a tensor of the file's is what the network now has."""
    if not isinstance(tensor, Tensor) or tensor.numel() != own.numel():
        return False
    return torch.allclose(tensor.to(own.dtype).view(own.shape), own, rtol=0, atol=0, equal_nan=True)


def copy_if_odd(tensor: Tensor) -> Tensor | None:
    """A copy of a buffer that is not finite by intention, as masks of attention are; None for all else."""
    if isinstance(tensor, nn.Parameter) or tensor.is_meta or torch.isfinite(tensor).all():
        return None
    return tensor.detach().clone()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
