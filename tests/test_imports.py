"""The imports point one way, as the architecture says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Of lightning_modules, from the bottom up; a module imports only from layers below its own.
LAYERS = [
    {"errors", "files", "maps", "memory", "naming", "relu_rule", "report"},
    {"figures", "halving", "weight_files"},
    {"budgets", "class_names", "vgg16", "comparison_figures", "synthesis", "synthesis_figures"},
    {"forward_pass", "networks", "robustness_figures"},
    {"attacks", "methods", "rows"},
    {"metrics"},
    {"callbacks", "attribution_summary", "robustness_summary", "synthesis_callbacks"},
    {"activation_maximization", "attribution", "classifier", "robustness"},
]


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(module: str) -> int:
    (layer,) = [k for k, names in enumerate(LAYERS) if module in names] or [None]
    assert layer is not None, f"{module} has no layer: add it to LAYERS"
    return layer


FILES = [file for package in ("datamodules", "lightning_modules", "scripts") for file in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_imports_point_one_way(file: Path) -> None:
    package, *inner = file.relative_to(ROOT).with_suffix("").parts
    imported = imports_of(file)
    if package == "datamodules":
        assert not {name for name in imported if name.startswith(("lightning_modules", "scripts"))}
    if package == "lightning_modules":
        assert not {name for name in imported if name.startswith(("datamodules", "scripts"))}
        if inner == ["__init__"]:
            return
        for name in imported:
            if name.startswith("lightning_modules."):
                other = name.split(".")[1]
                assert other == inner[0] or layer_of(other) < layer_of(inner[0]), f"{file.name} imports {name}"


def test_cleverhans_lives_behind_one_adapter() -> None:
    # The benchmark runs cleverhans as a peer.
    files = [file for file in FILES if "benchmarks" not in file.parts]
    using = [file.name for file in files if any(name.startswith("cleverhans") for name in imports_of(file))]
    assert using in ([], ["attacks.py"])
