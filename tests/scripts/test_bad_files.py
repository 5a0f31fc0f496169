"""Every kind of bad file leaves its row, and the run goes on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from evaluate_attribution import main

from datamodules import FolderListing
from datamodules.reading import samples
from lightning_modules.results.rows.parts import read_rows
from tests.scripts.processes import complete
from tests.zoo import VANISHING, make_zoo, read_or_crash

OPTIONS = [
    *("--model.weights", "shapes", "--model.methods", "[GradCAM]", "--model.n_figures", "3"),
    *("--data.batch_size", "4", "--trainer.accelerator", "cpu"),
]
save = FolderListing.save
# The same script, but for a file that is deleted once the folder is listed, and one that kills who decodes it.
SCRIPT = """
from lightning_modules.running.cli import run_main
from datamodules import FolderListing
from datamodules.reading import samples
from evaluate_attribution import main
from tests.scripts.test_bad_files import save_and_delete
from tests.zoo import read_or_crash

FolderListing.save = save_and_delete
samples.read_image = read_or_crash
"""


def save_and_delete(listing: FolderListing, file: Path) -> None:
    save(listing, file)
    (listing.root / "star" / VANISHING).unlink()


def check(run: Path, expected: dict[str, str | None], output: str) -> pd.DataFrame:
    rows = read_rows(run / "results").to_pandas().set_index("path")
    assert sorted(rows.index) == sorted(f"star/{name}" for name in expected)
    for name, message in expected.items():
        row = rows.loc[f"star/{name}"]
        if message is None:
            assert row["status"] == "ok", (name, row["error"])
            assert pd.isna(row["error"]), name
            assert row["probability"] > 0, name
        else:
            assert row["status"] == "failed", name
            assert re.search(message, row["error"]), (name, row["error"])
            assert pd.isna(row["probability"]), name
    n_failed = sum(message is not None for message in expected.values())
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["n_images"], summary["n_failed"]) == (len(expected), n_failed)
    assert f"{len(expected)} images, of which {n_failed} failed" in output
    assert len([path for path in (run / "figures").iterdir() if path.name[:5].isdecimal()]) == 3
    return rows.sort_index()


@pytest.mark.slow
def test_two_workers_and_two_processes(
    call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = make_zoo(tmp_path / "zoo/star")
    monkeypatch.setattr(FolderListing, "save", save_and_delete)
    content = (tmp_path / "zoo/star" / VANISHING).read_bytes()
    monkeypatch.setattr(samples, "read_image", read_or_crash)
    with pytest.warns(UserWarning, match="was killed by signal 9"):
        call(main, "--data.root", "zoo", *OPTIONS, "--data.num_workers", 2, "--out", "workers")
    one = check(tmp_path / "workers", expected, capsys.readouterr().out)

    (tmp_path / "zoo/star" / VANISHING).write_bytes(content)
    (tmp_path / "evaluate_zoo.py").write_text(SCRIPT)
    options = ["--data.root", "zoo", *OPTIONS, "--data.num_workers", "1", "--trainer.devices", "2"]
    process = complete("evaluate_zoo", [*options, "--out", "processes"], tmp_path, world=2)
    assert process.returncode == 0, process.stderr
    assert "was killed by signal 9" in process.stderr
    two = check(tmp_path / "processes", expected, process.stdout)
    assert one["error"].equals(two["error"])
    assert (one["probability"] - two["probability"]).abs().max() < 1e-5
