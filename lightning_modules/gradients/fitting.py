"""Batches that do not fit in the device's memory: computed in halves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError

OF_MEMORY = (
    *("DefaultCPUAllocator: can't allocate", "std::bad_alloc"),
    *("could not create a primitive", "could not create a memory"),  # oneDNN
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
"""What libraries say where they have no memory, in errors of no class of their own."""

OF_WHOLE_BATCH = ("failed",)
"""What a batch holds that is not of its N images, one by one."""

OF_BOXES = ("boxes", "box_labels")
"""What it holds of each of its boxes, which ``n_boxes`` shares out among the images."""

ResultT = TypeVar("ResultT")


def results_of_parts(
    step: Callable[[Batch], ResultT], batch: Batch, *, has_warned: bool = False
) -> list[tuple[int, ResultT]]:
    """What ``step`` gives for a batch; where its memory does not suffice, for its halves, their halves, and so on.

    Args:
        step: Batch -> anything. What it gives of an image depends on that image alone.
        batch: All that it holds is a list or tensor of N, but for ``failed`` and what there is of each box.
        has_warned: Whether the user was warned already.

    Returns:
        For each part, the number of its first image in the batch, and the result.

    Raises:
        InputError: If a single image does not fit.
    """
    try:
        return [(0, step(batch))]
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
    if not has_warned:
        warnings.warn(
            f"A batch of {n} does not fit in the device's memory, and is computed in halves. A data.batch_size of "
            f"{n // 2} saves the attempts.",
            stacklevel=2,
        )
    first, second = (results_of_parts(step, half, has_warned=True) for half in split_batch(batch, n // 2))
    return first + [(start + n // 2, result) for start, result in second]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had: of a GPU, or, which PyTorch has no class for, of the CPU."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in OF_MEMORY)


def split_batch(batch: Batch, k: int) -> tuple[Batch, Batch]:
    """The first ``k`` images of a batch, with what could not be read, and the others."""
    n_boxes = int(batch["n_boxes"][:k].sum()) if "n_boxes" in batch else 0  # of some there are no boxes
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    for name, value in batch.items():
        if name in OF_WHOLE_BATCH:
            first[name], second[name] = value, []
        else:
            assert isinstance(value, Tensor | list)
            end = n_boxes if name in OF_BOXES else k
            first[name], second[name] = value[:end], value[end:]
    return cast(Batch, first), cast(Batch, second)


def select_images(batch: Batch, numbers: Sequence[int], n_boxes: Sequence[int]) -> Batch:
    """Some images of a batch with their boxes.

    Args:
        batch: The batch.
        numbers: Of the images in it, ascending.
        n_boxes: As the batch has it, on the host.
    """
    of_each_box = [i for i, n in enumerate(n_boxes) for _ in range(n)]
    boxes = [k for k, i in enumerate(of_each_box) if i in numbers]
    selected: dict[str, Any] = {}
    for name, value in batch.items():
        chosen = boxes if name in OF_BOXES else numbers
        if name in OF_WHOLE_BATCH:
            selected[name] = []
        elif isinstance(value, Tensor):
            selected[name] = value[torch.tensor(chosen, dtype=torch.long, device=value.device)]
        else:
            assert isinstance(value, list)
            selected[name] = [value[i] for i in chosen]
    return cast(Batch, selected)
