from __future__ import annotations

from pathlib import Path

import pytest

from datamodules.writing import written_whole as written_whole_by_data
from lightning_modules.running.run_folder import LEFT, RunFolder
from lightning_modules.whole_files import written_whole

WRITTEN = [
    *(name for name in LEFT if "." in name and name != "sessions.json"),
    *("results/part-1-0000.parquet", "figures/00000_cat.png", "figures/00000_cat.pdf", "images/0000_cat_seed0.png"),
    *("exemplars/0000000.jpg", "exemplars/exemplars.parquet", "exemplars/exemplars.json"),
]
BEFORE_THEY_WERE_HIDDEN = (
    *("results/part-1-0000.parquet.tmp", "results/part-1-0000.tmp", "summary.json.tmp", "listing.arrow.77.part"),
    *("figures/00000_cat.png.tmp", "figures/00000_cat.pdf.tmp", "images/0000_cat_seed0.png.tmp"),
)
OF_THE_USER = ("notes.tmp", "results/notes.tmp", "images/cat.tmp", "figures/.nfs01", "mine/summary.json.tmp")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in (*WRITTEN, *OF_THE_USER, "sessions.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("[]")
    return tmp_path


def files(run: Path) -> set[Path]:
    return {path for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_killed_run_was_about_to_write_is_deleted(run: Path, name: str) -> None:
    before = files(run)
    write = written_whole_by_data if name == "listing.arrow" else written_whole
    block = write(run / name)  # which does not end, as if it were killed
    aside = block.__enter__()
    aside.write_text("half")
    assert files(run) == before | {aside}
    RunFolder(run).remove_unfinished()
    assert files(run) == before


def test_and_so_is_what_runs_left_before_such_files_were_hidden(run: Path) -> None:
    before = files(run)
    for name in BEFORE_THEY_WERE_HIDDEN:
        (run / name).write_text("half")
    RunFolder(run).remove_unfinished()
    assert files(run) == before


def test_in_a_folder_that_is_no_run_nothing_is_deleted(run: Path) -> None:
    (run / "sessions.json").unlink()
    (run / "summary.json.tmp").write_text("mine")
    before = files(run)
    RunFolder(run).remove_unfinished()
    assert files(run) == before
