"""The state dict in a file: which of several, and whether all of it is tensors."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.networks.weights.files import WeightsError, read_weights, some_of

PREFERRED = (
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "params_ema"),
)
"""Under which names files hold state dicts; of several, the first one here is taken."""

_NEVER_WEIGHTS = re.compile(r"optim|sched|lr_|scaler|amp$|loops|callbacks|hyper|rng|args|config|_extra_state$")


@dataclass
class StateDict:
    """Tensors by the names that they have in a file.

    Attributes:
        path: The file.
        tensors: Names -> tensors, with the versions of the layers (``_metadata``) where the file holds them. What a
            layer itself asks to be kept beside (``_extra_state``) need not be a tensor.
        notes: What was chosen in reading it, as sentences without subject and full stop: to be told.
    """

    path: Path
    tensors: OrderedDict[str, Any]
    notes: list[str] = field(default_factory=list)


def read_state_dict(path: Path, part: str = "") -> StateDict:
    """The state dict in a file; of several, the one called ``part``, else the first of :data:`PREFERRED`.

    Raises:
        WeightsError: If there is none, or no such part.
    """
    return state_dict_in(path, read_weights(path), part)


def state_dict_in(path: Path, content: Mapping[str, Any], part: str = "") -> StateDict:
    """As :func:`read_state_dict`, of what the file holds.

    Args:
        path: The file, for messages.
        content: What it holds.
        part: The name of one of its state dicts, such as ``model_ema``; or what the names of the tensors wanted begin
            with, such as ``ema_model``; or both, joined by a dot. "" = nothing said.
    """
    found = dict(_state_dicts(content))
    if not found:
        raise WeightsError(
            f"{path} is not a state dict: it should map names such as features.0.weight to tensors"
            + (f", but holds {some_of([str(key) for key in content])}." if content else ", but holds nothing.")
        )
    said = max((name for name in found if name and f"{part}.".startswith(f"{name}.")), key=len, default=None)
    name = _preferred(path, list(found)) if said is None else said
    prefix = part if said is None else part.removeprefix(said).removeprefix(".")
    state = StateDict(path, _checked(path, found[name]))
    if prefix:
        below = renamed(state.tensors, lambda old: without_prefix(old, f"{prefix}."))
        if not below:
            parts = [*filter(None, found), *dict.fromkeys(old.partition(".")[0] for old in state.tensors)]
            raise WeightsError(f"{path} has no part {part!r}; its parts are {some_of(parts, 12)}.")
        state.tensors = below
    elif said is None and len(found) > 1:
        others = [other for other in found if other != name]
        state.notes.append(
            f"{name} was taken of it; it also holds {some_of(others)}: {path.name}#{others[0]} takes that"
        )
    return state


def renamed(tensors: Mapping[str, Any], rename: Callable[[str], str | None]) -> OrderedDict[str, Any]:
    """The tensors under other names, and the versions of their layers too.

    Args:
        tensors: Names -> tensors.
        rename: Gives the new name of a tensor, or of a layer with a dot behind it; None leaves it out.
    """
    result: OrderedDict[str, Any] = OrderedDict()
    for old, tensor in tensors.items():
        new = rename(old)
        if new is not None:
            result[new] = tensor
    if (versions := versions_of(tensors)) is not None:
        layers = ((rename(f"{layer}." if layer else ""), version) for layer, version in versions.items())
        set_versions(result, {new.removesuffix("."): version for new, version in layers if new is not None})
    return result


def without_prefix(name: str, prefix: str) -> str | None:
    """The rest of a name that begins so; None if it does not."""
    return name.removeprefix(prefix) if name.startswith(prefix) else None


def versions_of(tensors: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What PyTorch keeps of each layer beside the tensors, above all its version; None = nothing was kept."""
    versions = getattr(tensors, "_metadata", None)
    return versions if isinstance(versions, Mapping) else None


def set_versions(tensors: OrderedDict[str, Any], versions: Mapping[str, Any]) -> None:
    """Lets the tensors carry the versions of their layers, as PyTorch's own state dicts do."""
    setattr(tensors, "_metadata", OrderedDict(versions))  # noqa: B010


def _state_dicts(content: Mapping[str, Any], depth: int = 2) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, state dict) of each in a file, "" being the file as a whole; in words of the file, joined by dots."""
    if content and all(map(_is_entry, content, content.values())):
        yield "", content
        return
    nested = False
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Mapping) and depth and not _NEVER_WEIGHTS.search(key):
            for name, state in _state_dicts(value, depth - 1):
                nested = True
                yield f"{key}.{name}".removesuffix("."), state
    if not nested and any(isinstance(value, Tensor) for value in content.values()):
        yield "", content


def _is_entry(name: Any, value: Any) -> bool:
    return isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state"))


def _preferred(path: Path, names: list[str]) -> str:
    """The name of the state dict to take where none was named."""
    known = [name for name in names if all(word in PREFERRED for word in name.split("."))]
    if len(names) > 1 and not known:
        raise WeightsError(f"{path} holds several state dicts: {some_of(names)}. Name one: {path.name}#{names[0]}.")
    return min(
        known or names, key=lambda name: [PREFERRED.index(word) for word in name.split(".") if word in PREFERRED]
    )


def _checked(path: Path, state: Mapping[Any, Any]) -> OrderedDict[str, Any]:
    for name, value in state.items():
        if not _is_entry(name, value):
            raise WeightsError(f"{path} is not a state dict: under {name!r} it holds a {type(value).__name__}.")
        if isinstance(value, Tensor) and (kind := _unusable(value)):
            raise WeightsError(f"{path} holds a {kind} tensor, {name}; weights should be plain numbers.")
    tensors = OrderedDict(state)
    if (versions := versions_of(state)) is not None:
        set_versions(tensors, {k: v for k, v in versions.items() if isinstance(k, str) and isinstance(v, Mapping)})
    return tensors


def _unusable(tensor: Tensor) -> str:
    """What kind of tensor it is, if it cannot be a weight here."""
    if tensor.layout != torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_complex():
        return "complex"
    return "" if tensor.device.type == "cpu" else f"{tensor.device.type} (that is, without values)"
