"""Files of weights: downloaded once, checked, read without executing them, and compared with the network."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from lightning_modules.errors import InputError


class WeightsError(InputError):
    """The weights asked for cannot be had; the message says why and what to do.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> load_vgg16("shape")
        Traceback (most recent call last):
        lightning_modules.networks.weight_files.WeightsError: No weights are called 'shape', and there is no...
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


def read_tensors(path: Path) -> Mapping[str, Any]:
    """What a file of tensors holds, read with ``weights_only=True``: nothing in it is executed.

    Raises:
        WeightsError: If it holds something else, or is damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of tensors alone, or it is damaged: {first_line(error)} It was not executed. If "
            "you trust it, save its state dict anew: torch.save(model.state_dict(), 'new.pth')."
        ) from error
    except Exception as error:  # torch.load raises whatever the bytes provoke: EOFError, KeyError, RuntimeError, ...
        raise WeightsError(f"{path} is not a PyTorch file, or it is damaged: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    return content


def check_tensors(path: Path, state: Any) -> dict[str, Tensor]:
    """The state dict, with the names that a network has on its own: a LightningModule's checkpoint holds it under its
    attribute's name.

    Raises:
        WeightsError: If it is no state dict.
    """
    if not isinstance(state, Mapping) or not state or not all(map(_is_weight, state, state.values())):
        raise WeightsError(f"{path} is not a state dict: it should map names such as features.0.weight to tensors.")
    return {name.removeprefix("network."): tensor for name, tensor in state.items()}


def _is_weight(name: Any, value: Any) -> bool:
    plain = isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
    return plain and value.device.type == "cpu" and not value.is_complex() and not value.is_quantized


def check_fit(path: Path, state: Mapping[str, Tensor], network: nn.Module, what: str, advice: str) -> None:
    """Refuses a state dict that does not fit ``network`` in every name and shape, or that is not finite.

    Args:
        path: Where it is from.
        state: Names -> tensors.
        network: What it should fit.
        what: The network in words, for the message.
        advice: The message's last sentence.

    Raises:
        WeightsError: If it does not fit.
    """
    expected = network.state_dict()
    problems = []
    if missing := [name for name in expected if name not in state]:
        problems.append(f"missing: {_some(missing)}")
    if surplus := [name for name in state if name not in expected]:
        problems.append(f"surplus: {_some(surplus)}")
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ][:3]
    if problems:
        raise WeightsError(f"{path} does not hold {what}; {'; '.join(problems)}. {advice}")
    if broken := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise WeightsError(
            f"{path} has NaN or infinite weights in {_some(broken)}. torchvision's IMAGENET1K_FEATURES file is like "
            "that: it has no usable classifier. Use IMAGENET1K_V1."
        )


def first_line(error: Exception) -> str:
    """What an error says first, or its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
