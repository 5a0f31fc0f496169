"""Names of configured objects, names as files and tags take them, and seeds that follow from names."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable
from typing import Any

from lightning_modules.errors import InputError


class NamedByOptions:
    """Whose ``repr`` is the class's name with the options that differ from their defaults.

    Each option of ``__init__`` has to be kept as the attribute of its name.

    Example:
        >>> class Blur(NamedByOptions):
        ...     def __init__(self, sigma: float = 1.0) -> None:
        ...         self.sigma = sigma
        >>> Blur(), Blur(2.0)
        (Blur, Blur(sigma=2.0))
    """

    def __repr__(self) -> str:
        options = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if getattr(self, name, parameter.default) != parameter.default
        ]
        return type(self).__name__ + (f"({', '.join(options)})" if options else "")


def check_objects(kind: type, word: str, given: Any) -> None:
    """Refuses what is no list of objects of a class, such as methods.

    Raises:
        InputError: If it is something else; says what would be right.
    """
    if isinstance(given, kind):
        raise InputError(f"{word}s should be a list, such as [{type(given).__name__}()].")
    is_one = isinstance(given, str | type) or not isinstance(given, Iterable)
    for each in [given] if is_one else given:
        check_object(kind, word, each)


def check_object(kind: type, word: str, given: Any, of_text: str = "") -> None:
    """Refuses what is no object of a class.

    Args:
        kind: The class.
        word: What messages call an object of it.
        given: What somebody gave.
        of_text: What makes one of a text; empty = a call of what it names.

    Raises:
        InputError: If it is something else; says what would be right.
    """
    if isinstance(given, kind):
        return
    if isinstance(given, type) and issubclass(given, kind):
        raise InputError(f"{given.__name__} is a class; write {given.__name__}().")
    if isinstance(given, str):
        raise InputError(f"{given!r} is a text, and no {word}; {of_text or f'write {plain_name(given)}()'}.")
    what = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
    raise InputError(f"{what} is no {word}: it should be an object of a class that derives from {kind.__name__}.")


def seed_from(*parts: object) -> int:
    """A seed of 63 bits from what is to decide it, such as a run's seed and an image's key."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def plain_name(text: str) -> str:
    """A name without what a file or a tag may not be called: each run of such letters is an underscore.

    Example:
        >>> plain_name("features.3:17 (conv)")
        'features.3_17_conv_'
    """
    return re.sub(r"[^\w.-]+", "_", text)
