"""Files of weights: found, downloaded once and checked, and read without executing them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torchvision.models import WeightsEnum

from lightning_modules.errors import InputError
from lightning_modules.networks.weights.file_kinds import is_safetensors, what_else


class WeightsError(InputError):
    """The weights asked for cannot be had; the message says why and what to do.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> load_vgg16("shape")
        Traceback (most recent call last):
        lightning_modules.networks.weights.files.WeightsError: No weights are called 'shape', and there is no...
    """


def download(entry: WeightsEnum) -> Path:
    """The local file of torchvision's weights, downloaded if need be, its SHA-256 checked against the file's name.

    Raises:
        WeightsError: If it cannot be downloaded, or is not what its name says.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(entry.url).path).name)
    if not path.exists():
        try:
            entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except URLError as error:
            raise WeightsError(
                f"{entry.name} could not be downloaded from {entry.url} ({error.reason}). Without a network, fetch "
                f"that file elsewhere and put it at {path}, or pass its path as the weights."
            ) from error
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"{entry.name} could not be downloaded to {path}: {error}") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rpartition("-")[2]
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} is damaged or not what its name says: its SHA-256 begins with {digest[: len(expected)]}, not "
            f"{expected}. Delete it; it is then downloaded again."
        )
    return path


def find_file(said: str | Path) -> tuple[Path, str] | None:
    """The file that ``PATH`` or ``PATH#PART`` names, and the part of it, "" = as a whole; None = there is no such.

    Example:
        >>> find_file(f"{__file__}#model_ema")[1], find_file("nowhere.pth")
        ('model_ema', None)
    """
    whole = Path(said).expanduser()
    if whole.exists():
        return whole, ""
    path, _, part = str(whole).rpartition("#")
    return (Path(path), part) if path and part and Path(path).exists() else None


def read_weights(path: Path) -> Mapping[str, Any]:
    """What a file of weights holds, of PyTorch or of safetensors; nothing in it is executed.

    Raises:
        WeightsError: If it is something else, or is damaged; says what it is.
    """
    try:
        if not path.is_dir() and is_safetensors(path):
            return _read_safetensors(path)
        what = what_else(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if what:
        raise WeightsError(f"{path} is not a file of weights: it is {what}.")
    try:
        # Of the open file: PyTorch goes by its name otherwise. What it warns of is checked, or is of no concern.
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path} {_what_is_pickled(path, error)}") from error
    except Exception as error:  # torch.load raises whatever the bytes provoke: EOFError, KeyError, RuntimeError, ...
        raise WeightsError(f"{path} is not a PyTorch file, or it is damaged: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    return content


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        return load_file(path)
    except Exception as error:  # as torch.load, whatever the bytes provoke
        raise WeightsError(f"{path} is not a safetensors file, or it is damaged: {first_line(error)}.") from error


def _what_is_pickled(path: Path, error: pickle.UnpicklingError) -> str:
    """What a file holds that its reader would have had to execute, and what to do."""
    try:
        executed = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a file of before PyTorch 1.6, or a damaged one: the message names the first alone
        executed = re.findall(r"GLOBAL (\S+)", str(error))[:1]
    if not executed:
        reason = (re.findall(r"WeightsUnpickler error:\s*(.+)", str(error)) or [first_line(error)])[0]
        return (
            f"is not a file of tensors alone, or it is damaged: {reason.strip().rstrip('.')}. It was not executed. If "
            "you trust it, save its state dict by torch.save(state_dict, 'new.pth')."
        )
    names = some_of(executed, 3)
    loaded = f"torch.load('{path.name}', weights_only=False)"
    if any(name.startswith("torch.nn.modules.") for name in executed):
        return (
            f"is a whole pickled module ({names}), not a file of tensors alone. It was not executed. Where its code is "
            f"at hand and you trust it, save its state dict: torch.save({loaded}.state_dict(), 'new.pth')."
        )
    return (
        f"is not a file of tensors alone: it also holds {names}. It was not executed. If you trust it, save its state "
        f"dict alone, of {loaded}: torch.save(..., 'new.pth')."
    )


def first_line(error: Exception) -> str:
    """What an error says first, without a terminal's colours, or its type's name."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0]


def some_of(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
