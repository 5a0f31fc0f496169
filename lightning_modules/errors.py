"""The error that a user can act on."""


class InputError(ValueError):
    """An option, a file or a tensor that cannot be used; the message says what would have been right."""
