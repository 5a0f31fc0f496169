"""Names of configured objects, and seeds that follow from names."""

from __future__ import annotations

import hashlib
import inspect


def name_with_options(configured: object) -> str:
    """The class's name with the options that differ from their defaults, each read from the attribute of its name.

    Example:
        >>> class Blur:
        ...     def __init__(self, sigma: float = 1.0) -> None:
        ...         self.sigma = sigma
        >>> name_with_options(Blur()), name_with_options(Blur(2.0))
        ('Blur', 'Blur(sigma=2.0)')
    """
    options = [
        f"{name}={getattr(configured, name)!r}"
        for name, parameter in inspect.signature(type(configured)).parameters.items()
        if getattr(configured, name, parameter.default) != parameter.default
    ]
    return type(configured).__name__ + (f"({', '.join(options)})" if options else "")


def seed_from(*parts: object) -> int:
    """A seed of 63 bits from what is to decide it, such as a run's seed and an image's key."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
