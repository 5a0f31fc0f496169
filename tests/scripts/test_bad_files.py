"""Every kind of bad file leaves its row, and the run goes on."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pandas as pd
import pytest

from datamodules import FolderSource
from lightning_modules.results.storage import read_rows
from tests.scripts.processes import complete
from tests.zoo import VANISHING, make_zoo

OPTIONS = [
    *("--model.weights", "shapes", "--model.methods", "[GradCAM]", "--model.n_figures", "3"),
    *("--data.batch_size", "4", "--trainer.accelerator", "cpu"),
]
save = FolderSource.save
# The same script, but for a file that is deleted once the folder is listed, and one that kills who decodes it.
SCRIPT = """
import multiprocessing

from datamodules import loader
from lightning_modules.running.cli import run_main
from datamodules import FolderSource
from datamodules import reader as samples
from evaluate_attribution import main
from tests.scripts.test_bad_files import save_and_delete
from tests.zoo import read_or_crash

FolderSource.save = save_and_delete
samples.read_image = read_or_crash
loader.CHILDREN = multiprocessing.get_context("fork")
"""


def save_and_delete(source: FolderSource, file: Path) -> None:
    save(source, file)
    (source.root / "star" / VANISHING).unlink(missing_ok=True)


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
def test_a_run_that_an_image_kills_goes_on_past_it(tmp_path: Path) -> None:
    """The same command again finds the image that killed the first, in a child process, and ends."""
    expected = make_zoo(tmp_path / "zoo/star")
    (tmp_path / "evaluate_zoo.py").write_text(SCRIPT)
    options = ["--data.root", "zoo", *OPTIONS, "--data.num_workers", 3, "--out", "run"]
    content = (tmp_path / "zoo/star" / VANISHING).read_bytes()
    killed = complete("evaluate_zoo", options, tmp_path)
    assert killed.returncode in (-signal.SIGKILL, 1, 143), killed.stderr
    assert list((tmp_path / "run/reading").iterdir())
    (tmp_path / "zoo/star" / VANISHING).write_bytes(content)
    process = complete("evaluate_zoo", options, tmp_path)
    assert process.returncode == 0, process.stderr
    check(tmp_path / "run", expected, process.stdout)
    assert not (tmp_path / "run/reading").exists()
