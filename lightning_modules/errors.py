"""The error that a user can act on, and what raises it of options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args


class InputError(ValueError):
    """An option, a file or a tensor that cannot be used; the message says what would have been right.

    Example:
        >>> raise InputError("eps must be at least 0, got -1.")
        Traceback (most recent call last):
        lightning_modules.errors.InputError: eps must be at least 0, got -1.
    """


def described(error: BaseException) -> str:
    """What somebody else's error says, as one sentence: its first line, or its type's name.

    Example:
        >>> described(KeyError("image")), described(RuntimeError())
        ("KeyError: 'image'.", 'RuntimeError.')
    """
    line = next(iter(str(error).strip().splitlines()), "")
    kind = type(error).__name__
    # What such an error says is often a bare word.
    plain = line and not isinstance(error, KeyError | AttributeError | AssertionError | IndexError)
    text = line if plain else f"{kind}: {line}" if line else kind
    return text.rstrip(".:") + "."


def told_from(value: float, *bounds: float, form: str = ".3g") -> str:
    """A number in as few digits as tell it from the bounds that it is on one side of.

    Args:
        value: What was got.
        bounds: What it is held against, in the same message.
        form: How it is shown where that tells enough.

    Example:
        >>> told_from(0.123456, 0, 1), told_from(1.0000001, 0, 1), told_from(0.5004, 0.5, form=".2f")
        ('0.123', '1.0000001', '0.5004')
    """
    for each in (form, *(f".{digits}g" for digits in range(3, 17))):
        text = format(value, each)
        shown = float(text.replace(",", ""))
        if all((shown > bound, shown < bound) == (value > bound, value < bound) for bound in bounds):
            return text
    return repr(float(value))


def check_at_least_one(**options: int | None) -> None:
    """Refuses an option below 1, by its name; None is fine.

    Raises:
        InputError: If there is one.
    """
    for name, value in options.items():
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")


def check_is_one_of(choices: Any, **options: str) -> None:
    """Refuses an option that is none of the words of a ``Literal``, by its name.

    Raises:
        InputError: If there is one.
    """
    for name, value in options.items():
        if value not in get_args(choices):
            raise InputError(f"{name} should be one of {', '.join(get_args(choices))}, got {value!r}.")


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
        remedy = of_text or f"write {given.strip('()')}()"
        raise InputError(f"{given!r} is a text, and no {word}; {remedy}.")
    what = given.__name__ if isinstance(given, type) else f"a {type(given).__name__}"
    raise InputError(f"{what} is no {word}: it should be an object of a class that derives from {kind.__name__}.")
