"""Names of configured objects, names as files and tags take them, and seeds that follow from names."""

from __future__ import annotations

import hashlib
import inspect
import re


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
