"""Facts of ImageNet: class names and WordNet ids."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
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


def wordnet_ids_of(names: Sequence[str]) -> list[str]:
    """The WordNet ids of classes, if these are ImageNet's 1,000 in their order; else [].

    They may be written in other words than here: with underscores, with more synonyms behind a comma, some of them
    quite different. Half of a thousand at their places are no accident.

    Example:
        >>> wordnet_ids_of(imagenet_class_names())[281], wordnet_ids_of(["tabby"])
        ('n02123045', [])
    """
    ours = imagenet_class_names()
    if len(names) != len(ours):
        return []
    at_their_places = sum(_first_word(name) == _first_word(own) for name, own in zip(names, ours))
    return sorted(imagenet_classes()) if 2 * at_their_places >= len(ours) else []


def _first_word(name: str) -> str:
    return name.partition(",")[0].replace("_", " ").strip().casefold()
