"""Classes as users name them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from lightning_modules.errors import InputError


def find_class(wanted: str | int, class_names: Sequence[str]) -> int:
    """The index of a class given by name or index.

    Raises:
        InputError: If there is no such class; suggests near ones.

    Example:
        >>> find_class("dog", ["cat", "dog"]), find_class("0", ["cat", "dog"])
        (1, 0)
    """
    if isinstance(wanted, int) or wanted.isdecimal():
        if 0 <= int(wanted) < len(class_names):
            return int(wanted)
        raise InputError(f"There is no class {wanted}: the network has classes 0 to {len(class_names) - 1}.")
    if wanted in class_names:
        return class_names.index(wanted)
    near = difflib.get_close_matches(wanted, class_names, n=5) or list(class_names[:5])
    raise InputError(f"The network has no class {wanted!r}. Did you mean one of: {', '.join(near)}?")
