"""Classes as users name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datamodules.batch import AmbiguousClassError, ClassTable, UnknownClassError
from lightning_modules.errors import InputError

TARGET_WORDS = {
    "both": "the class that each image is predicted to be, and the label's where it is another",
    "label": "the class of each image's folder",
    "predicted": "the class that each image is predicted to be",
    "least_likely": "the class that each image is least likely to be",
}
"""What may stand in place of a class, and what it means."""


def find_class(wanted: Any, class_names: Sequence[str]) -> int:
    """The index of a class as a person names it, see :class:`~datamodules.classes.ClassTable`.

    Raises:
        InputError: If there is no such class, or several; suggests near ones, or lists them.
    """
    table = ClassTable(class_names)
    try:
        return table.index(wanted)
    except AmbiguousClassError as error:
        raise InputError(str(error)) from error
    except UnknownClassError as error:
        if error.is_index:
            raise InputError(f"There is no class {wanted}: the network has classes 0 to {len(table) - 1}.") from error
        near = ", ".join(error.near)
        raise InputError(f"The network has no class {wanted!r}. Did you mean one of: {near}?") from error


def find_target(target: Any, class_names: Sequence[str], words: Sequence[str]) -> str | int:
    """The class that the option ``model.target`` means: its index, or one of the option's words.

    A word means the same with every network. A class that is called so is had by its index; a warning says it.

    Args:
        target: What the user wrote.
        class_names: Names of the network's classes.
        words: Those of :data:`TARGET_WORDS` that the option has.

    Raises:
        InputError: As :func:`find_class`.

    Example:
        >>> find_target("label", ["cat", "dog"], ["label"]), find_target("dog", ["cat", "dog"], ["label"])
        ('label', 1)
    """
    if isinstance(target, str) and target in words:
        ClassTable(class_names).tell_of("model.target", target, TARGET_WORDS[target])
        return target
    return find_class(target, class_names)
