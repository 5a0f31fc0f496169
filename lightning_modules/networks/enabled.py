"""The one spelling of "gradients enabled"."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gradients_enabled() -> Iterator[None]:
    """Gradients can be had inside, whatever stands around: Lightning tests under inference mode, or under no_grad."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
