from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.processes import complete

ROOT = Path(__file__).parents[2]


def environment(*folders: Path) -> dict[str, str]:
    """Of a process that imports from these folders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "COLUMNS": "200"}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Calls the ``main`` of a script in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    # What a test imports by an import path of its own must not be what another imported by the same name.
    for name in [name for name in sys.modules if name.startswith("my_")]:
        monkeypatch.delitem(sys.modules, name)

    def call(main: Callable[[list[str]], Any], *args: object) -> Any:
        # LightningCLI warns of options on the command line of pytest itself.
        monkeypatch.setattr(sys, "argv", ["script"])
        return main([str(arg) for arg in args])

    return call


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a script in a process of its own, from an empty folder."""

    def run(name: str, *args: object) -> subprocess.CompletedProcess:
        return complete(name.removesuffix(".py"), args, tmp_path)

    return run
