"""Types of options that are text as it was written: names of classes, of files, of layers.

YAML reads 012 as ten, 1:30 as ninety and on as true before anyone can look whether a class is called so. A parser of
``lightning_modules.running`` gives an option of these types the text that stands there; for Python they are what they
are made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Text = str
    Texts = Sequence[str] | str
    Names = Sequence[str] | Mapping[str, str] | Mapping[str, int] | str
else:

    class _AsNamed(type):
        def __repr__(cls) -> str:  # which help prints
            return cls.__name__

    class Text(metaclass=_AsNamed):
        """A text."""

    class Texts(metaclass=_AsNamed):
        """A text, or a list of them."""

    class Names(metaclass=_AsNamed):
        """Names of classes in any form: a list, a table of names and indices, or a file."""
