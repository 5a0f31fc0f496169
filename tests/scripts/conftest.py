from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def environment(*folders: Path) -> dict[str, str]:
    """Of a process that imports from these folders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "COLUMNS": "200"}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Calls the ``main`` of a script in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(main: Callable[[list[str]], Any], *args: object) -> Any:
        # LightningCLI warns of options on the command line of pytest itself.
        monkeypatch.setattr(sys, "argv", ["script"])
        return main([str(arg) for arg in args])

    return call


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs a script as a user would, from an empty folder."""

    def run(name: str, *args: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "scripts" / name), *map(str, args)]
        return subprocess.run(command, cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True, timeout=250)

    return run
