"""Every public name is imported where it is said to be, and says what it is."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("datamodules", "lightning_modules", "lightning_modules.metrics", "lightning_modules.synthesis")
NAMES = [
    (package, name)
    for package in map(importlib.import_module, PACKAGES)
    for name in package.__all__
    if callable(getattr(package, name))  # what a constant is, its module says
]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[f"{package.__name__}.{name}" for package, name in NAMES])
def test_a_public_name_has_a_docstring(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    assert value.__doc__, "has no docstring"
    if inspect.isclass(value):
        assert value.__doc__ not in [base.__doc__ for base in inspect.getmro(value)[1:]], "has that of its base"


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_what_is_imported(package: str) -> None:
    file = ROOT / package.replace(".", "/") / "__init__.py"
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(importlib.import_module(package).__all__) == imported
