"""Passes that run as code which ``torch.compile`` makes of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch._functorch.config
from torch import Tensor

from lightning_modules.errors import InputError, described

OPTIONS: dict[str, Any] = {"backend": "inductor", "options": {"emulate_precision_casts": True}}
"""What ``torch.compile`` gets for ``model.compile``. In bfloat16 it is to round where the network as it is rounds."""


def keep_graphs() -> None:
    """Lets compiled code leave its graph as it is, to be gone through again. It concerns all of a process.

    Otherwise the first backward pass writes over what the forward kept, and PyTorch refuses a second one.
    """
    torch._functorch.config.donated_buffer = False


@contextmanager
def running_compiled(images: Tensor, name: str) -> Iterator[None]:
    """Around a call of a compiled network, which makes its code when it first meets such images.

    One code serves all numbers of images but 1, so the last and smaller batch of a run does not wait for another.

    Args:
        images: What the network is called with.
        name: What messages call it.

    Raises:
        InputError: If no code can be made.
    """
    torch._dynamo.maybe_mark_dynamic(images, 0)
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        raise InputError(
            f"model.compile: torch.compile fails on {name}: {described(error.__cause__ or error)} It needs a C++ "
            "compiler and, on a GPU, Triton. Without model.compile the network runs as it is."
        ) from error
