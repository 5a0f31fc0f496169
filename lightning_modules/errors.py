"""The error that a user can act on."""


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
