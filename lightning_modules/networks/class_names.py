"""Classes as users name them."""

from __future__ import annotations

from collections.abc import Sequence

from datamodules.batch import ClassTable, UnknownClassError
from lightning_modules.errors import InputError


def find_class(wanted: str | int, class_names: Sequence[str]) -> int:
    """The index of a class as a person names it, see :class:`~datamodules.classes.ClassTable`.

    Raises:
        InputError: If there is no such class; suggests near ones.
    """
    try:
        return ClassTable(class_names).index(wanted)
    except UnknownClassError as error:
        if error.is_index:
            raise InputError(
                f"There is no class {wanted}: the network has classes 0 to {len(class_names) - 1}."
            ) from error
        near = ", ".join(error.near)
        raise InputError(f"The network has no class {wanted!r}. Did you mean one of: {near}?") from error
