"""A part of the images, chosen by their paths: the same on every machine, whatever else lies there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from datamodules.classes import composed
from datamodules.errors import DataError, at_least


@dataclass(frozen=True)
class Subset:
    """Which images of a folder are taken: all, or those that each of these lets through, in this order.

    Chance is a hash of the seed and the path. So of one seed a smaller sample is a part of a larger one, and an image
    is chosen or not whatever lies beside it, as far as there is room.

    Args:
        include: Patterns such as ``n021*`` or ``*/*_1.jpg``, in which ``*`` stands for any letters, also slashes. An
            image is taken if its path, or that of a folder that it lies in, matches one of them or is written so.
            () = all.
        limit_per_class: So many images of each class. None = all.
        sample: So many images. None = all.
        seed: Another one chooses others.

    Raises:
        DataError: If a number is below 1, or the seed below 0.

    Example:
        >>> subset = Subset(sample=2)
        >>> subset.mask(["cat/a.jpg", "cat/b.jpg", "dog/a.jpg"], np.array([0, 0, 1])).sum()
        np.int64(2)
    """

    include: tuple[str, ...] = ()
    limit_per_class: int | None = None
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, limit_per_class=self.limit_per_class, sample=self.sample)
        at_least(0, seed=self.seed)

    @property
    def is_all(self) -> bool:
        return not self.include and self.limit_per_class is None and self.sample is None

    def notes(self, paths: Sequence[str], labels: np.ndarray) -> list[str]:
        """What :meth:`mask` takes of these images otherwise than may be meant, in sentences; [] = nothing."""
        notes = []
        if absent := [pattern for pattern in self.include if not any(_matches(path, pattern) for path in paths)]:
            notes.append(f"data.include has {len(absent)} patterns that match no image: {', '.join(absent[:3])}")
        if self.limit_per_class is not None and (n := int((labels < 0).sum())):
            notes.append(f"data.limit_per_class leaves out {n:,} images without a label")
        return notes

    def mask(self, paths: Sequence[str], labels: np.ndarray) -> np.ndarray:
        """Which of the images of these paths and labels, long ``(N,)``, are taken: bool ``(N,)``.

        Raises:
            DataError: If nothing matches, or images have no class of which to take so many.
        """
        taken = np.ones(len(paths), bool)
        if self.include:
            taken = np.array([any(_matches(path, pattern) for pattern in self.include) for path in paths])
            if not taken.any():
                raise DataError(
                    f"data.include {', '.join(self.include)} matches none of {len(paths):,} images, of which the first "
                    f"is {paths[0]}. Patterns are of paths below the root; upper and lower case differ."
                )
        if self.limit_per_class is None and self.sample is None:
            return taken
        chance = self._chance(paths)
        if self.limit_per_class is not None:
            taken &= labels >= 0
            if not taken.any():
                raise DataError("data.limit_per_class needs images with labels; data.sample takes any.")
            left = np.flatnonzero(taken)
            left = left[np.lexsort((chance[left], labels[left]))]
            # Counts up within each class, from 0.
            _, first, sizes = np.unique(labels[left], return_index=True, return_counts=True)
            place = np.arange(len(left)) - np.repeat(first, sizes)
            taken[left[place >= self.limit_per_class]] = False
        if self.sample is not None:
            left = np.flatnonzero(taken)
            taken[left[np.argsort(chance[left], kind="stable")[self.sample :]]] = False
        return taken

    def _chance(self, paths: Iterable[str]) -> np.ndarray:
        """A number for each path, uint64 ``(N,)``, as good as random."""
        hashes = (hashlib.sha256(f"{self.seed}:{path}".encode()).digest()[:8] for path in paths)
        return np.array([int.from_bytes(one, "big") for one in hashes], np.uint64)


def _matches(path: str, pattern: str) -> bool:
    """Whether a path, or that of a folder it lies in, matches a pattern, or is called so: ``cat [old]`` is both."""
    place, pattern = composed(path), composed(pattern).removeprefix("./").rstrip("/")
    while place:
        if place == pattern or fnmatchcase(place, pattern):
            return True
        place = place.rpartition("/")[0]
    return False
