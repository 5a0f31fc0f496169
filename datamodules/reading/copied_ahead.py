"""Batches that are on their way to the device before they are asked for: while it computes one, the next is copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

BatchT = TypeVar("BatchT")


class Copies(Protocol):
    """How a batch comes to a device."""

    def begun(self, batch: Any) -> Any:
        """A copy of a batch that has begun; nobody waits for it."""

    def ended(self, copy: Any) -> Any:
        """The batch on the device; whatever the device is given to do from now on comes after the copy."""


class CopiedAhead(Generic[BatchT]):
    """A loader's batches, on a device: the next one is on its way before a batch is given.

    Lightning copies a batch when its step begins. A step ends when the rows are read from the device, which then has
    nothing to do while the copy takes place. Here the copy takes place while the step before computes. That it waits
    for a batch more costs nothing: workers read on meanwhile.

    Args:
        loader: Gives the batches; those that lie in pinned memory are copied without anybody waiting.
        copies: How they come to the device.
    """

    def __init__(self, loader: Iterable[BatchT], copies: Copies) -> None:
        self.loader = loader
        self.copies = copies

    def __len__(self) -> int:
        """How many batches there are; a TypeError if the loader does not know."""
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[BatchT]:
        batches = iter(self.loader)
        waiting: list[Any] = []
        error: Exception | None = None
        while error is None:
            try:
                waiting.append(self.copies.begun(next(batches)))
            except StopIteration:
                break
            except Exception as raised:  # what was read before it is computed none the less
                error = raised
            if len(waiting) > 1:
                yield self.copies.ended(waiting.pop(0))
        for copy in waiting:
            yield self.copies.ended(copy)
        if error is not None:
            raise error


class CudaCopy(NamedTuple):
    """A copy that has begun, and what happens when it ends."""

    batch: Any
    end: torch.cuda.Event


class CudaCopies:
    """Copies to a GPU on a stream of their own.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def begun(self, batch: Any) -> CudaCopy:
        with torch.cuda.stream(self.stream):
            moved = tree_map_only(Tensor, lambda tensor: tensor.to(self.device, non_blocking=True), batch)
            return CudaCopy(moved, self.stream.record_event())

    def ended(self, copy: CudaCopy) -> Any:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copy.end)
        for leaf in tree_leaves(copy.batch):
            if isinstance(leaf, Tensor):
                # Its memory is the other stream's, which must not have it again before this one is through with it.
                leaf.record_stream(current)
        return copy.batch
