"""The errors that a user can act on, and how their messages list names."""

from __future__ import annotations

import os
from collections.abc import Iterable


class DataError(ValueError):
    """Images, or an option of theirs, that cannot be used as they are; the message says what would have been right."""


class UnreachableError(DataError):
    """What an image is read from cannot be reached, or is another one by now: no fault of the image; a run stops."""


class DecodingError(ValueError):
    """A file that is not a usable image; the message says why, without the path."""


class AnnotationError(ValueError):
    """A box annotation that cannot be used; the message names the file."""


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of the names, and dots if there are more."""
    names = list(names)
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def printable(path: str | bytes) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 are written as escapes (``\\xff``)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def at_least(least: int, **options: int | None) -> None:
    """Refuses options that are given and too small.

    Raises:
        DataError: Names the first of them.
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise DataError(f"data.{name} must be at least {least}, got {value}.")
