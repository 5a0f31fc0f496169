"""What the options of methods may be, where several methods have them."""

from __future__ import annotations

from typing import Any, get_args

from lightning_modules.errors import InputError


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
