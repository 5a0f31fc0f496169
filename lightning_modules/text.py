"""Names: of configured objects, as files and tags take them, and text from outside made harmless for what shows it."""

from __future__ import annotations

import html
import inspect
import re
import warnings
from typing import ClassVar

from rich.text import Text

JOINERS = "\u200c\u200d"
"""What stands between letters of Persian, of Indian scripts and of emoji; it is not seen, and turns nothing round."""


class NamedByOptions:
    """An object whose ``repr`` is the class's name with the options that differ from their defaults.

    Each option of ``__init__`` has to be kept as the attribute of its name.

    Attributes:
        meaning: Of a class, in one line, for a reader who meets it for the first time; pages show it below the tables.

    Example:
        >>> class Blur(NamedByOptions):
        ...     def __init__(self, sigma: float = 1.0) -> None:
        ...         self.sigma = sigma
        >>> Blur(), Blur(2.0)
        (Blur, Blur(sigma=2.0))
    """

    meaning: ClassVar[str] = ""

    def __repr__(self) -> str:
        options = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if getattr(self, name, parameter.default) != parameter.default
        ]
        return type(self).__name__ + (f"({', '.join(options)})" if options else "")


def plain_name(text: str) -> str:
    """A name without what a file or a tag may not be called: each run of such letters is an underscore.

    Example:
        >>> plain_name("features.3:17 (conv)")
        'features.3_17_conv_'
    """
    return re.sub(r"[^\w.-]+", "_", text)


def plain(text: str) -> str:
    """In one line, and without what else would steer a terminal, or turn the order of letters round.

    Example:
        >>> plain("two\\nlines")
        'two lines'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in JOINERS else " " for letter in text)


def plain_lines(text: str) -> str:
    """Text of several lines, each of them plain, for where the lines are our own.

    Example:
        >>> plain_lines("error:\\n\\x1b[31mred")
        'error:\\n [31mred'
    """
    return "\n".join(map(plain, text.split("\n")))


def in_rich(text: str) -> Text:
    """For Rich, as an object: of a string Rich reads markup and names of emoji."""
    return Text(plain(text))


def in_markdown(text: str) -> str:
    """For Markdown: HTML, and what is taken for emphasis, code, links and the end of a table's cell, is made plain."""
    text = html.escape(plain(text), quote=False)
    return re.sub(r"[\\`*|]|(?<!\w)_|_(?!\w)|(?<=\])\(", r"\\\g<0>", text)


def show_warnings_plainly() -> None:
    """Lets warnings, which name files and classes, steer no terminal either; what a user can mend is told in a line."""
    formatted = warnings.formatwarning
    if not getattr(formatted, "is_plain", False):

        def plainly(message: Warning | str, category: type[Warning], *where: object, **options: object) -> str:
            if issubclass(category, UserWarning):  # of which a line of code says nothing
                return f"warning: {plain(str(message))}\n"
            return plain_lines(formatted(message, category, *where, **options))  # type: ignore[arg-type]

        plainly.is_plain = True  # type: ignore[attr-defined]
        warnings.formatwarning = plainly
