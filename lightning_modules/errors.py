"""The error that a user can act on."""


class InputError(ValueError):
    """An option, a file or a tensor that cannot be used; the message says what would have been right.

    Example:
        >>> raise InputError("eps must be at least 0, got -1.")
        Traceback (most recent call last):
        lightning_modules.errors.InputError: eps must be at least 0, got -1.
    """
