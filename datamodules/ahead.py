"""Ranges of files at addresses, fetched before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from datamodules.remote import AT_ONCE, StoredFile, read_range

_BLOCK, _GAP = 1 << 22, 1 << 16
"""Bytes: of about so many is a request for neighbours, that lie no further from each other than this."""


class Ahead:
    """Ranges of files, which are fetched before they are asked for, those of neighbours in one request.

    Args:
        files: The files.
        indices: What the N ranges are called, in the order in which they will be asked for, ascending, long ``(N,)``.
        numbers: That of the file of each, long ``(N,)``.
        starts: Where each begins, long ``(N,)`` ...
        ends: ... and ends.
    """

    def __init__(
        self,
        files: Sequence[StoredFile],
        indices: np.ndarray,
        numbers: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
    ) -> None:
        gaps = starts[1:] - ends[:-1]
        is_near = (numbers[1:] == numbers[:-1]) & (gaps >= 0) & (gaps <= _GAP)
        is_near &= starts[1:] // _BLOCK == starts[:-1] // _BLOCK
        firsts = np.flatnonzero(np.concatenate([[True], ~is_near])[: len(numbers)])
        self.requests = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=len(numbers)))
        self.files, self.indices = files, indices
        self.numbers, self.starts = numbers[firsts], starts[firsts]
        self.ends = ends[np.append(firsts[1:], len(numbers)) - 1] if len(firsts) else ends
        self.left = np.bincount(self.requests, minlength=len(firsts))
        self.fetched: dict[int, Future[bytes]] = {}
        self.lock = threading.Lock()
        self.fetchers = ThreadPoolExecutor(AT_ONCE, "fetcher")

    def read(self, index: int, *ranges: tuple[int, int]) -> list[bytes]:
        """Parts of the range of this name, each from a start to an end in its file. Several threads may ask at once.

        Raises:
            UnreachableError: See :func:`read_range`.
        """
        request = int(self.requests[np.searchsorted(self.indices, index)])
        with self.lock:
            for each in range(request, min(request + AT_ONCE, len(self.left))):
                if each not in self.fetched and (each == request or self.left[each] > 0):
                    self.fetched[each] = self.fetchers.submit(self._fetch, each)
            future = self.fetched[request]
        content, begin = future.result(), int(self.starts[request])
        with self.lock:
            self.left[request] -= 1
            if self.left[request] <= 0:
                self.fetched.pop(request, None)
        return [content[start - begin : end - begin] for start, end in ranges]

    def _fetch(self, request: int) -> bytes:
        file = self.files[int(self.numbers[request])]
        return read_range(file, int(self.starts[request]), int(self.ends[request]))
