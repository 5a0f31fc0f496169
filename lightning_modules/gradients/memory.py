"""How the process gets its memory: what takes most of the time on a CPU, after the convolutions."""

from __future__ import annotations

import ctypes

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
# Where glibc's own adaptation ends once it has seen large tensors.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _MMAP_MAX = 32 << 20, 64 << 20, 1 << 16


def keep_freed_memory(keep: bool = True) -> None:
    """Lets the process keep the memory that it frees, for its next tensors, instead of giving it back each time.

    glibc takes every tensor of 32 MiB or more from the system and gives it back at once, and the system clears each of
    its pages again before the next one is written: a fifth to a quarter of the time of VGG16's forward and backward
    pass in batches of 8. Nothing happens where there is no glibc. The scripts call it; importing the library does not,
    since it concerns all of a process.

    Args:
        keep: Whether to keep it. False goes back to what glibc does by itself, and gives back what was kept.

    Example:
        >>> import torch
        >>> keep_freed_memory()  # once, before the first batch
        >>> torch.zeros(16, 1024, 1024).sum()
        tensor(0.)
        >>> keep_freed_memory(False)
    """
    # No pieces of their own, however large: a threshold above 32 MiB is refused by glibc before 2.35.
    _call("mallopt", _M_MMAP_MAX, 0 if keep else _MMAP_MAX)
    _call("mallopt", _M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
    _call("mallopt", _M_TRIM_THRESHOLD, -1 if keep else _TRIM_THRESHOLD)
    if not keep:
        give_back_freed_memory()


def give_back_freed_memory() -> None:
    """Gives what the process freed and kept back to the system, as if it had just started."""
    _call("malloc_trim", 0)


def _call(name: str, *values: int) -> None:
    """Calls a function of glibc; does nothing where there is none of that name."""
    try:
        function = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return
    function(*values)
