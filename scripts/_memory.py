"""How the process gets its memory: what dominates the time of VGG16's early layers, after the convolutions."""

from __future__ import annotations

import ctypes

# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Lets the process keep the memory that it frees, for its next tensors, instead of giving it back each time.

    glibc takes every tensor of 32 MiB or more from the system and gives it back at once, and the system clears each of
    its pages again before the next one is written: a fifth of the time of VGG16's forward and backward pass on a CPU.
    Nothing happens where there is no ``mallopt``. It is for the scripts: a library should not decide this for others.
    """
    _call("mallopt", _M_MMAP_THRESHOLD, 1 << 30)
    _call("mallopt", _M_TRIM_THRESHOLD, -1)


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
