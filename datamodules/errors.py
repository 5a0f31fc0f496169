"""The error that a user can act on."""


class DataError(ValueError):
    """Images, or an option of theirs, that cannot be used as they are; the message says what would have been right."""
