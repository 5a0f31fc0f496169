"""Settings of a run that an older version began: options that it did not have yet."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any


def completed(before: Any, now: Any, defaults: Any = None) -> Any:
    """Settings, with the options that only the present ones name where these have their default values.

    An option that an older version did not have is what its default says: a run that goes on with it is the same.

    Args:
        before: The settings of a run, as YAML holds them.
        now: The present ones.
        defaults: Option -> default value, nested as they are; of a class, what its signature says.

    Example:
        >>> completed({"data": {"root": "photos"}}, {"data": {"root": "photos", "seed": 0}}, {"data": {"seed": 0}})
        {'data': {'root': 'photos', 'seed': 0}}
        >>> completed({"data": {}}, {"data": {"seed": 7}}, {"data": {"seed": 0}})
        {'data': {}}
    """
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return [completed(one, other) for one, other in zip(before, now)]
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return before
    if "class_path" in now and now["class_path"] == before.get("class_path"):
        defaults = {"init_args": _defaults_of(now["class_path"])}
    defaults = defaults if isinstance(defaults, Mapping) else {}
    found = dict(before)
    for key, value in now.items():
        if key in before:
            found[key] = completed(before[key], value, defaults.get(key))
        elif key in defaults and (value == defaults[key] or value == completed({}, value, defaults[key])):
            found[key] = value
    return found


def options_of(settings: Any, prefix: str = "") -> set[str]:
    """The names of all options that settings name, and of their groups.

    Example:
        >>> sorted(options_of({"data": {"seed": 0}, "out": "run"}))
        ['data', 'data.seed', 'out']
    """
    if not isinstance(settings, Mapping):
        return set()
    return {f"{prefix}{key}" for key in settings}.union(
        *(options_of(value, f"{prefix}{key}.") for key, value in settings.items())
    )


def _defaults_of(class_path: str) -> dict[str, Any]:
    """The defaults of a class's options, as YAML holds them; none where it cannot be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}
    known = {name: of.default for name, of in parameters.items() if of.default is not inspect.Parameter.empty}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
