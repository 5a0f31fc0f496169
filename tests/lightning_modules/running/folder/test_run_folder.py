from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.writing import written_whole as written_whole_by_data
from lightning_modules.running.folder.run_folder import LEFT, RunError, RunFolder
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


DEFAULTS: dict[str, Any] = {"data": {"root": None, "seed": 0}, "model": {"methods": None, "n": 4}}
PGD = {"class_path": "lightning_modules.PGD", "init_args": {"n_steps": 5, "unsaturate": False}}
NOW: dict[str, Any] = {"data": {"root": "photos", "seed": 0}, "model": {"methods": [PGD], "n": 4}}


def settled(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Goes on with a run of other settings."""
    (folder / "config.yaml").write_text(yaml.safe_dump(before))
    RunFolder(folder).settle("config.yaml", yaml.safe_dump(now), fixed=True, defaults=DEFAULTS)


def test_a_run_from_before_an_option_was_there_goes_on_while_it_has_its_default(tmp_path: Path) -> None:
    settled(tmp_path, {"data": {"root": "photos"}, "model": {"methods": [{**PGD, "init_args": {"n_steps": 5}}]}}, NOW)
    settled(tmp_path, {"model": NOW["model"], "data": {"root": "photos"}}, NOW)
    with pytest.raises(RunError, match=r"other settings: data\.seed was not said, is now 7\. Give this one another"):
        settled(tmp_path, {**NOW, "data": {"root": "photos"}}, {**NOW, "data": {"root": "photos", "seed": 7}})
    before = {**NOW, "model": {"n": 4, "methods": [{**PGD, "init_args": {"unsaturate": False}}]}}
    with pytest.raises(RunError, match=r"model\.methods was .*PGD'.*, is now .*'n_steps': 5"):
        settled(tmp_path, before, NOW)


def test_an_option_that_is_gone_is_named(tmp_path: Path) -> None:
    before = {**NOW, "model": {**NOW["model"], "old": 3}}
    with pytest.raises(RunError, match=r"other settings: model\.old was 3, is no option any more\. Give this one"):
        settled(tmp_path, before, NOW)
