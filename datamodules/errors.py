"""The errors that a user can act on."""


class DataError(ValueError):
    """Images, or an option of theirs, that cannot be used as they are; the message says what would have been right."""


class DecodingError(ValueError):
    """A file that is not a usable image; the message says why, without the path."""
