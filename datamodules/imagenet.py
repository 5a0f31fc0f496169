"""Facts of ImageNet: class names and WordNet ids."""

from __future__ import annotations

import csv
import functools
from pathlib import Path


@functools.cache
def imagenet_classes() -> dict[str, tuple[int, str]]:
    """WordNet id -> (index of the class, its name), for the 1,000 classes of ILSVRC 2012.

    Example:
        >>> imagenet_classes()["n02123045"]
        (281, 'tabby')
    """
    with Path(__file__).with_name("imagenet_classes.csv").open(newline="") as file:
        return {row["wnid"]: (int(row["index"]), row["name"]) for row in csv.DictReader(file)}


@functools.cache
def imagenet_class_names() -> list[str]:
    """The 1,000 class names, in the order of the indices."""
    return [name for _, name in sorted(imagenet_classes().values())]
