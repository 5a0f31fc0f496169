"""Every public name is importable from its package and has a docstring with an example that runs (as a doctest)."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("datamodules", "lightning_modules", "lightning_modules.metrics", "lightning_modules.synthesis")
NAMES = [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[f"{package}.{name}" for package, name in NAMES])
def test_a_public_name(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    if not callable(value):
        return  # a constant; its module says what it is
    assert value.__doc__, "has no docstring"
    own = inspect.cleandoc(value.__doc__)
    examples = doctest.DocTestParser().get_examples(own)
    assert examples, "its docstring has no example"
    assert any(example.want for example in examples) or "Trainer" in own, "its example shows no result"
    assert value.__doc__ not in [base.__doc__ for base in inspect.getmro(value)[1:]] if inspect.isclass(value) else True


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
