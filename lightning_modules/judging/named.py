"""Which class an image is meant to show, by the name of its file or folder, and how often a network agrees."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from datamodules.batch import AmbiguousClassError, ClassTable


def named_class(path: str, classes: ClassTable) -> int | None:
    """The class that the file or its folder is named after; None = neither is, or they are named after two.

    A number before the name, or numbers and seeds after it, do not count, and a number alone is no name of a file.

    Example:
        >>> table = ClassTable(["great white shark", "tabby"])
        >>> [named_class(path, table) for path in ("a/0007_great_white_shark_seed0.png", "tabby/1.png", "a/1.png")]
        [0, 1, None]
    """
    file = Path(path)
    found = {_first_named([file.parent.name], classes)}
    if not file.stem.isdigit():
        found.add(_first_named([file.stem, re.sub(r"^\d+[_ -]|([_ -](seed)?\d+)+$", "", file.stem)], classes))
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _first_named(texts: Sequence[str], classes: ClassTable) -> int | None:
    for text in texts:
        try:
            found = classes.named(text)
        except AmbiguousClassError:
            return None
        if found is not None:
            return found
    return None


def note_of_named(paths: Sequence[str], probabilities: Tensor, class_names: Sequence[str]) -> str:
    """How many of the images that are named after a class the network takes for it; empty where none is named so.

    Args:
        paths: Of the images, N.
        probabilities: Of their classes, ``(N, n_classes)``.
        class_names: Of the network.
    """
    classes = ClassTable(class_names)
    named = [(i, target) for i, path in enumerate(paths) if (target := named_class(path, classes)) is not None]
    if not named:
        return ""
    orders = probabilities.argsort(dim=1, descending=True, stable=True).tolist()
    ranks, n = [orders[i].index(target) for i, target in named], len(named)
    shares = [f"{sum(rank < k for rank in ranks) / n:.1%} {words}" for k, words in _PLACES if k < len(class_names)]
    mean = sum(float(probabilities[i, target]) for i, target in named) / n
    return (
        f"Of {n:,} image{'s' * (n > 1)} named after a class by file or folder: named so {', '.join(shares)}; mean "
        f"probability of that class {mean:.4f}."
    )


_PLACES = ((1, "first"), (5, "among the first five"))
