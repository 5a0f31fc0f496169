"""The state dict in a file: which of several, and whether all of it is tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
        tensors: Names -> tensors, as PyTorch's ``OrderedDict`` with the versions of the layers where the file holds
            them whole. What a layer itself asks to be kept beside (``_extra_state``) need not be a tensor.
        notes: What was chosen in reading it, as sentences without subject and full stop.
    """

    path: Path
    tensors: Mapping[str, Any]
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
            with, such as ``ema_model``; or both, joined by a dot. "" = by default.
    """
    found = dict(_state_dicts(content))
    if not found:
        holds = f"holds {some_of([str(key) for key in content])}" if content else "holds nothing"
        raise WeightsError(
            f"{path} is not a state dict: it should map names such as features.0.weight to tensors, but {holds}."
        )
    named = max((name for name in found if name and f"{part}.".startswith(f"{name}.")), key=len, default=None)
    name = _preferred(path, list(found)) if named is None else named
    prefix = part if named is None else part.removeprefix(named).removeprefix(".")
    tensors = found[name]
    _check_tensors(path, tensors)
    if prefix:
        below = {old.removeprefix(f"{prefix}."): t for old, t in tensors.items() if old.startswith(f"{prefix}.")}
        if not below:
            parts = [*filter(None, found), *dict.fromkeys(old.partition(".")[0] for old in tensors)]
            raise WeightsError(f"{path} has no part {part!r}; its parts are {some_of(parts, 12)}.")
        return StateDict(path, below)
    if named is None and len(found) > 1:
        others = [other for other in found if other != name]
        also = f"it also holds {some_of(others)}: {path.name}#{others[0]} takes that"
        return StateDict(path, tensors, [f"{name} was taken of it; {also}"])
    return StateDict(path, tensors)


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


def _check_tensors(path: Path, state: Mapping[Any, Any]) -> None:
    """Refuses what holds something else, or tensors that PyTorch would turn into other numbers, or cannot copy."""
    for name, value in state.items():
        if not _is_entry(name, value):
            raise WeightsError(f"{path} is not a state dict: under {name!r} it holds a {type(value).__name__}.")
        if isinstance(value, Tensor) and (
            value.layout != torch.strided or value.is_quantized or value.is_complex() or value.is_meta
        ):
            kind = f"{value.dtype}, {value.layout}, on {value.device}".replace("torch.", "")
            raise WeightsError(f"{path} holds {name} as a tensor of {kind}; weights should be plain numbers.")
