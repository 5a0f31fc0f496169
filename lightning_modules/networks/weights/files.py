"""Files of weights: found, downloaded once and checked, and read without executing them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torchvision.models import WeightsEnum

from lightning_modules.errors import InputError

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")
"""How files of weights usually end."""

_OTHER_LIBRARIES = "a file of another library, such as Keras, ONNX or NumPy; PyTorch loads state dicts"
_OTHERS_BY_FIRST_BYTES = (
    (rb"$", "an empty file (0 bytes)"),
    (rb"version https://git-lfs", "a pointer of Git LFS in place of the file; fetch it by git lfs pull"),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page; the download gave an error or asked for a login"),
    (rb'\s*\{.*"weight_map"', "the index of weights that lie in several files; save them as one"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ", "a compressed file; unpack it"),
    (rb"\x89HDF|\x93NUMPY|GGUF|....TFL3|\x08[\x01-\x14]\x12.[a-zA-Z]", _OTHER_LIBRARIES),
)
_OTHERS_BY_SUFFIX = (".h5", ".keras", ".onnx", ".pb", ".tflite", ".npy", ".npz")


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


def find_file(name: str | Path) -> tuple[Path, str] | None:
    """The file that ``PATH`` or ``PATH#PART`` names, and the part of it, "" = as a whole; None = there is no such.

    Example:
        >>> find_file(f"{__file__}#model_ema")[1], find_file("nowhere.pth")
        ('model_ema', None)
    """
    whole = Path(name).expanduser()
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
        what, is_safetensors = _what_else(path), _head(path)[8:9] == b"{"
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error
    if what:
        raise WeightsError(f"{path} is not a file of weights: it is {what}.")
    try:
        if is_safetensors:
            return load_file(path)
        # Of the open file: PyTorch goes by its name otherwise. What it warns of is checked, or is of no concern.
        with warnings.catch_warnings(action="ignore"), path.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        try:
            names = some_of(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)), 3)
        except Exception:  # a file of before PyTorch 1.6, or a damaged one
            names = "other objects, or is damaged"
        raise WeightsError(
            f"{path} is not a file of tensors alone: it also holds {names}. It was not executed. If you trust it, save "
            f"its state dict: that of torch.load('{path.name}', weights_only=False), by torch.save(..., 'new.pth')."
        ) from error
    except Exception as error:  # both libraries raise whatever the bytes provoke: EOFError, KeyError, ...
        raise WeightsError(
            f"{path} is not a file of PyTorch or safetensors, or is damaged: {first_line(error)}"
        ) from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    return content


def _what_else(path: Path) -> str | None:
    """What a file is in words, with what to do, if it is one of those that are often taken for weights."""
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES))
        return "a folder; name the file itself" + (f", such as {inside[0]}" if inside else "")
    head = _head(path)
    if _is_torchscript(path):
        return (
            "a TorchScript archive, which holds code; save its weights alone: "
            f"torch.save(torch.jit.load('{path.name}').state_dict(), 'new.pth')"
        )
    found = (what for pattern, what in _OTHERS_BY_FIRST_BYTES if re.match(pattern, head, re.DOTALL))
    return next(found, _OTHER_LIBRARIES if path.suffix in _OTHERS_BY_SUFFIX else None)


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except Exception:  # no archive, or a damaged one, which raises whatever its bytes provoke
        return False


def _head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    with path.open("rb") as file:
        return file.read(1024)


def first_line(error: Exception) -> str:
    """What an error says first, without a terminal's colours, or its type's name."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0]


def some_of(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
