"""How objects with options are called in tables and figures."""

from __future__ import annotations

import inspect


class NamedByOptions:
    """Whose ``repr`` is the class's name with the options that differ from their defaults.

    Each option of ``__init__`` has to be kept as the attribute of its name.
    """

    def __repr__(self) -> str:
        options = [
            f"{name}={getattr(self, name)!r}"
            for name, parameter in inspect.signature(type(self)).parameters.items()
            if getattr(self, name, parameter.default) != parameter.default
        ]
        return type(self).__name__ + (f"({', '.join(options)})" if options else "")
