from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import yaml

from datamodules.writing import written_whole
from lightning_modules.running.folder.run_folder import FORMAT, LEFT, RunError, RunFolder

WRITTEN = [
    *(name for name in LEFT if "." in name and name != "sessions.json"),
    *("results/part-1-0000.parquet", "figures/00000_cat.png", "figures/00000_cat.pdf", "images/0000_cat_seed0.png"),
    *("exemplars/0000000.jpg", "exemplars/exemplars.parquet", "exemplars/exemplars.json"),
]
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
    block = written_whole(run / name)  # which does not end, as if it were killed
    aside = block.__enter__()
    aside.write_text("half")
    assert files(run) == before | {aside}
    RunFolder(run).remove_unfinished()
    assert files(run) == before


def test_in_a_folder_that_is_no_run_nothing_is_deleted(run: Path) -> None:
    (run / "sessions.json").unlink()
    (run / "summary.json.tmp").write_text("mine")
    before = files(run)
    RunFolder(run).remove_unfinished()
    assert files(run) == before


def test_other_settings_are_named(tmp_path: Path) -> None:
    before = {"data": {"root": "photos", "old": 3}, "out": "run"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(before))
    now = {"data": {"root": "photos", "seed": 0}, "out": "elsewhere"}
    with pytest.raises(RunError, match=r"data\.old was 3, is now not given; data\.seed was not given, is now 0\. Give"):
        RunFolder(tmp_path).settle("config.yaml", yaml.safe_dump(now), fixed=True)


@pytest.mark.parametrize(
    ("sessions", "is_ours"),
    [
        ([{"began": 0, "command": "python ..."}], False),
        ([{"began": 0, "format": FORMAT + 1}], False),
        ([{"began": 0, "format": FORMAT}, {"began": 1, "format": FORMAT - 1}], False),
        ([{"began": 0, "format": FORMAT}], True),
        (None, False),
    ],
    ids=["no format", "a later one", "one of two", "this one", "no sessions"],
)
def test_a_run_of_another_version_is_refused(tmp_path: Path, sessions: list | None, is_ours: bool) -> None:
    if sessions is not None:
        (tmp_path / "sessions.json").write_text(json.dumps(sessions))
    with contextlib.nullcontext() if is_ours else pytest.raises(RunError, match="of another version of VGG Lens"):
        RunFolder(tmp_path).refuse_other_version()


def test_a_session_says_of_which_version_it_is(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin_session("python ...")
    folder.refuse_other_version()
