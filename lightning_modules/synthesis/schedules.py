"""What changes from step to step: how large the views of an image are, which frequencies move, how far a step goes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from lightning_modules.errors import InputError
from lightning_modules.text import NamedByOptions


class Schedule(NamedByOptions, ABC):
    """What a schedule is: numbers for each step, from 1 to ``steps``."""

    @abstractmethod
    def view_size(self, step: int, steps: int, size: int) -> int:
        """Side in pixels of what the network sees of an image whose side is ``size``, after its transforms."""

    @abstractmethod
    def cutoff(self, step: int, steps: int) -> float:
        """The highest frequency of the image that moves, in cycles a pixel; 0.5 is the highest along an axis."""

    @abstractmethod
    def rate(self, step: int, steps: int) -> float:
        """The factor on the learning rate."""


class CoarseToFine(Schedule):
    """Small views and low frequencies first: the object as a whole comes before its parts.

    Args:
        sizes: Sides of the views, as shares of the image's side, above 0 and at most 1; each for as many steps.
        first_cutoff: Highest frequency, in cycles a pixel, that moves at the first step, above 0. It rises evenly to
            that of all.
        opened: Share of the steps, above 0 and at most 1, after which all frequencies move.
        last_rate: Factor on the learning rate at the last step, in [0, 1], from 1 down along a cosine.
    """

    def __init__(
        self,
        sizes: Sequence[float] = (0.5, 0.643, 0.786, 1.0),
        first_cutoff: float = 0.06,
        opened: float = 0.7,
        last_rate: float = 0.05,
    ) -> None:
        if not sizes or not all(0 < share <= 1 for share in sizes):
            raise InputError(f"CoarseToFine.sizes must be shares above 0 and at most 1, got {list(sizes)}.")
        if not first_cutoff > 0 or not 0 < opened <= 1 or not 0 <= last_rate <= 1:
            raise InputError(
                "CoarseToFine needs first_cutoff above 0, opened above 0 and at most 1, last_rate from 0 to 1, got "
                f"{first_cutoff}, {opened} and {last_rate}."
            )
        self.sizes = tuple(sizes)
        self.first_cutoff = first_cutoff
        self.opened = opened
        self.last_rate = last_rate

    def view_size(self, step: int, steps: int, size: int) -> int:
        return max(1, round(self.sizes[(step - 1) * len(self.sizes) // steps] * size))

    def cutoff(self, step: int, steps: int) -> float:
        share = min(1.0, (step - 1) / (self.opened * steps))
        return math.inf if share == 1 else self.first_cutoff + share * max(0.0, 0.5 - self.first_cutoff)

    def rate(self, step: int, steps: int) -> float:
        half = (1 + math.cos(math.pi * (step - 1) / max(1, steps - 1))) / 2
        return self.last_rate + (1 - self.last_rate) * half
