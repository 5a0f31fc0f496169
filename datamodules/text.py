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

    class Text:
        """A text."""

    class Texts:
        """A text, or a list of them."""

    class Names:
        """Names of classes in any form: a list, a table of names and indices, or a file."""
