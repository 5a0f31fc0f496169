"""How numbers are computed: to float32's digits unless the user asks for speed."""

from __future__ import annotations

from typing import Any

import torch


def compute_to_float32() -> None:
    """Switches TensorFloat-32 off for convolutions, where PyTorch has it on; in matrix products it is off already.

    It rounds factors to three digits, and differently in batches of other sizes: whoever wants speed asks for
    bf16-mixed, and whoever asks for 32-true gets it. The scripts call it, since it concerns all of a process.

    ``cudnn.benchmark`` stays as it is, off unless ``trainer.benchmark`` is true: it takes for each size of a batch the
    algorithm that was the fastest when tried, so the last digits of rows follow from batch sizes and from the moment.
    """
    torch.backends.cudnn.allow_tf32 = False


def arithmetic(precision: str, is_compiled: bool) -> dict[str, Any]:
    """What decides the last digits of numbers, for ``summary.json``.

    Args:
        precision: The Trainer's.
        is_compiled: Whether the network is.
    """
    cudnn = torch.backends.cudnn
    return {
        "precision": precision,
        "compiled": is_compiled,
        "cudnn.allow_tf32": cudnn.allow_tf32,
        "cudnn.benchmark": cudnn.benchmark,
        "cudnn.deterministic": cudnn.deterministic,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
