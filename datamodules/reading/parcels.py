"""Parcels: what one process hands to another, its tensors in memory that both have had from the start."""

from __future__ import annotations

import io
import itertools
import mmap
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes: where a tensor begins."""


class Slots:
    """Memory that a process shares with the workers that it forks, in slots that each hold one batch.

    A worker fills slots of its own. Each is free again when nothing is left of the tensors that lie in it.

    Args:
        n_workers: How many workers there are.
        n_each: How many slots each has.
        n_bytes: Size of a slot.

    Raises:
        OSError: If the system does not give so much memory.
    """

    known: ClassVar[weakref.WeakValueDictionary[int, Slots]] = weakref.WeakValueDictionary()
    """All that there are, by numbers that forked processes know them by too."""

    _numbers = itertools.count()

    def __init__(self, n_workers: int, n_each: int, n_bytes: int) -> None:
        self.n_each = n_each
        self.n_bytes = -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        # Anonymous memory takes no room before it is written to, and is gone with the last process.
        self._memory = mmap.mmap(-1, n_workers * n_each * self.n_bytes)
        self._is_taken = np.frombuffer(mmap.mmap(-1, n_workers * n_each), bool)
        self.number = next(self._numbers)
        self.known[self.number] = self

    def take(self, worker: int) -> int | None:
        """A free slot of a worker's, which it then has; None = there is none."""
        for slot in range(worker * self.n_each, (worker + 1) * self.n_each):
            if not self._is_taken[slot]:
                self._is_taken[slot] = True
                return slot
        return None

    def bytes_of(self, slot: int) -> np.ndarray:
        """A slot's bytes, uint8 ``(n_bytes,)``."""
        return np.frombuffer(self._memory, np.uint8, self.n_bytes, slot * self.n_bytes)

    def bytes_until_released(self, slot: int) -> np.ndarray:
        """The same; the slot is free again when this array, and all that has part of it, is gone."""
        found = self.bytes_of(slot)
        weakref.finalize(found, self._is_taken.__setitem__, slot, False).atexit = False
        return found


class Parcel:
    """An object that is pickled already, its tensors in a slot where there is room, and unpickled as what it holds.

    Args:
        content: The object.
        slots: Where tensors may lie; None = nowhere.
        worker: Whose slots.
    """

    def __init__(self, content: Any, slots: Slots | None, worker: int) -> None:
        buffers: list[pickle.PickleBuffer] = []
        self.pickled = _pickled(content, buffers.append)
        raw = [buffer.raw() for buffer in buffers]
        slot = None if slots is None else slots.take(worker)
        self.slot = None if slots is None or slot is None else (slots.number, slot)
        # Of each buffer where it lies in the slot, or else its bytes.
        self.places: list[tuple[int, int] | bytearray] = [(0, 0)] * len(raw)
        room = np.empty(0, np.uint8) if slots is None or slot is None else slots.bytes_of(slot)
        start = 0
        for k in sorted(range(len(raw)), key=lambda k: -raw[k].nbytes):
            end = start + raw[k].nbytes
            if end > len(room):
                self.places[k] = bytearray(raw[k])
                continue
            room[start:end] = raw[k]
            self.places[k] = (start, end)
            start = -(-end // ALIGNMENT) * ALIGNMENT

    def __reduce__(self) -> Any:
        return _unpacked, (self.pickled, self.slot, self.places)


def _pickled(content: Any, add_buffer: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """The object without the bytes of its tensors and arrays, which are added to buffers."""
    with io.BytesIO() as file:
        _Pickler(file, 5, buffer_callback=add_buffer).dump(content)
        return file.getvalue()


class _Pickler(pickle.Pickler):
    def reducer_override(self, content: Any) -> Any:
        if type(content) is not Tensor:
            return NotImplemented
        flat = content.detach().contiguous().reshape(-1).view(torch.uint8)
        buffer = pickle.PickleBuffer(flat.numpy())  # type: ignore[arg-type]
        return _tensor, (buffer, content.dtype, content.shape)


def _tensor(buffer: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    # An empty buffer is refused.
    return torch.frombuffer(buffer, dtype=dtype).reshape(shape) if len(buffer) else torch.empty(shape, dtype=dtype)


def _unpacked(pickled: bytes, slot: tuple[int, int] | None, places: Sequence[tuple[int, int] | bytearray]) -> Any:
    """What a parcel holds. Its tensors are not copied out of the slot."""
    room = np.empty(0, np.uint8) if slot is None else Slots.known[slot[0]].bytes_until_released(slot[1])
    return pickle.loads(pickled, buffers=[p if isinstance(p, bytearray) else room[slice(*p)] for p in places])
