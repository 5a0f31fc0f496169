"""What produced a result: the code, the libraries, the weights, the devices."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

PACKAGES = (
    *("vgg-lens", "torch", "torchvision", "pytorch-lightning", "torchmetrics", "cleverhans"),
    *("numpy", "pillow", "scipy", "pandas", "pyarrow"),
)
LIBRARIES = ("captum", "foolbox", "timm", "transformers")
"""Whose code networks, methods and attacks may be of."""


def versions() -> dict[str, str | None]:
    """Versions of Python and of what numbers depend on, if it is used; None = not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in (*PACKAGES, *(library for library in LIBRARIES if library in sys.modules)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def git_commit() -> str | None:
    """The commit of this code, with ``+changes`` if files differ from it; None outside a git checkout."""
    git = ["git", "-C", str(Path(__file__).resolve().parent), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.check_output([*git, "--dirty=+changes"], stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of a network's weights and buffers.

    Example:
        >>> weights_sha256(nn.ReLU())[:8]
        'e3b0c442'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def device_names(device: torch.device) -> list[str]:
    """The devices of all processes of the run, by rank."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [name]
    names: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(names, name)
    return names


def seeds(owner: Any) -> dict[str, int]:
    """The seeds of what draws random numbers among the attributes of ``owner``: methods, metrics, an attack."""
    found: dict[str, int] = {}
    for value in vars(owner).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        found |= {repr(part): part.seed for part in parts if isinstance(getattr(part, "seed", None), int)}
    return found


def cpu_name() -> str:
    """The processor, and how many CPUs there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} CPUs"
