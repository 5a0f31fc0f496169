"""Batches that do not fit in the device's memory: computed in halves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.errors import InputError

OF_MEMORY = (
    *("DefaultCPUAllocator: can't allocate", "std::bad_alloc"),
    *("could not create a primitive", "could not create a memory"),  # oneDNN
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What libraries say where they have no memory, in errors of no class of their own."""

OF_WHOLE_BATCH = ("failed",)
"""What a batch holds that is not of its N images, one by one."""


def in_halves_if_need_be(
    step: Callable[[dict[str, Any]], dict[str, Any]], batch: dict[str, Any], *, told: bool = False
) -> dict[str, Any]:
    """What ``step`` returns for a batch; where its memory does not suffice, of its halves, their halves, and so on.

    Args:
        step: Batch -> ``rows``, a list, and ``figures``, by the number of the image in the batch. Each row depends on
            its image alone.
        batch: ``image``, ``(N, 3, H, W)``; all else but ``failed`` is a list or tensor of N.
        told: Whether the user has been told already.

    Raises:
        InputError: If a single image does not fit.
    """
    try:
        return step(batch)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # Beyond this block the error, and with it all that the step held, is gone.
        reason = str(error).partition("\n")[0]
    n = len(batch["image"])
    if n < 2:
        raise InputError(f"The device's memory does not suffice for a single image: {reason}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if not told:
        warnings.warn(
            f"A batch of {n} does not fit in the device's memory, and is computed in halves. A data.batch_size of "
            f"{n // 2} saves the attempts.",
            stacklevel=2,
        )
    first, second = (in_halves_if_need_be(step, half, told=True) for half in _split(batch, n // 2))
    figures = first["figures"] | {i + n // 2: figure for i, figure in second["figures"].items()}
    return {"rows": first["rows"] + second["rows"], "figures": figures}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: of a GPU, or, which PyTorch has no class for, of the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in OF_MEMORY)


def _split(batch: Mapping[str, Any], k: int) -> tuple[dict[str, Any], dict[str, Any]]:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for name, value in batch.items():
        if name in OF_WHOLE_BATCH:
            first[name], second[name] = value, []
        else:
            assert isinstance(value, Tensor | list)
            first[name], second[name] = value[:k], value[k:]
    return first, second
