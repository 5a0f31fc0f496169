"""A RUN that others read, write, move or copy: it works, or a sentence says why not."""

from __future__ import annotations

import importlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import compare_runs
import evaluate_attribution
import pandas as pd
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules import read_maps
from lightning_modules.results.storage import read_rows
from lightning_modules.running.folder import run_folder
from lightning_modules.running.folder.run_folder import RunError, RunFolder

from .blows import sleepy_args, wait_for
from .processes import Run

EVALUATION = [
    *("--model.weights", "shapes", "--model.methods", "[GradCAM]", "--model.metrics", "[]", "--model.n_figures", 1),
    *("--data.num_workers", 0, "--data.batch_size", 2, "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false"),
]


def test_who_reads_a_run_that_is_running(call: Callable, shapes: Path, tmp_path: Path) -> None:
    """Rows, figures and maps are those of the batches that have ended; what needs all of them says so."""
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "folder").symlink_to(shapes / "val/heart")
    kept = ["--model.save_maps", "true", "--trainer.limit_test_batches", 4]
    args = [*sleepy_args(tmp_path, tmp_path), *kept]
    run = Run("evaluate_attribution", args, tmp_path, rows_per_part=1)
    wait_for((tmp_path / "asleep_0").exists, run)
    rows = pd.read_parquet(tmp_path / "run/results")
    assert len(rows) == 2  # a batch; those of the next one come with those of the one that is being computed
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/run/results/*.parquet'").fetchall() == [(2,)]
    assert set(read_maps(tmp_path / "run")) == set(rows["path"])
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert len(board.Tags()["images"]) == 1  # of --model.n_figures
    with pytest.raises(RunError, match=r"run in run has not come to its end\. Its command, typed again, goes on"):
        call(compare_runs.main, "run", "run2")
    (tmp_path / "go").touch()
    assert run.wait() == [0], run.output()
    assert len(pd.read_parquet(tmp_path / "run/results")) == 8
    assert len(read_maps(tmp_path / "run")) == 8
    assert "3_images" not in board.Reload().Tags()["scalars"]


@contextmanager
def written_by_another(folder: Path) -> Iterator[None]:
    """A process of its own holds the folder, as a run does."""
    fork = multiprocessing.get_context("fork")
    is_locked, may_end = fork.Event(), fork.Event()

    def hold() -> None:
        held = RunFolder(folder)
        held.lock()
        is_locked.set()
        may_end.wait(250)

    process = fork.Process(target=hold)
    process.start()
    assert is_locked.wait(250)
    try:
        yield
    finally:
        may_end.set()
        process.join()


@pytest.mark.process
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("evaluate_attribution", [*EVALUATION, "--data.root", "val"]),
        ("evaluate_attribution", [*EVALUATION, "--data.root", "val", "--report"]),
        (
            "train_classifier",
            [
                *("--data.root", "val", "--model.weights", "random", "--model.width", 0.05),
                *("--model.hidden_features", 8, "--trainer.accelerator", "cpu"),
            ],
        ),
        ("demo", []),
    ],
    ids=["evaluation", "report", "training", "demo"],
)
def test_who_writes_where_another_does_is_refused(
    call: Callable, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, options: list[object]
) -> None:
    (tmp_path / "val").symlink_to(shapes / "val")
    monkeypatch.setattr(run_folder, "WAIT_S", 0.3)
    with (
        written_by_another(tmp_path / "run"),
        pytest.raises(
            RunError, match=r"run is being written by process \d+ on .*, since 20.*give this run another --out"
        ),
    ):
        call(importlib.import_module(script).main, *options, "--out", "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_run_that_was_moved_or_copied_goes_on(call: Callable, shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "val").symlink_to(shapes / "val")
    options = [*EVALUATION, "--data.root", "val", "--data.sample", 6]
    call(evaluate_attribution.main, *options, "--out", "run", "--trainer.limit_test_batches", 1)
    shutil.copytree(tmp_path / "run", tmp_path / "copied")
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    for name in ("copied", "elsewhere"):
        parts = set((tmp_path / name / "results").iterdir())
        call(evaluate_attribution.main, *options, "--out", name)
        assert parts < set((tmp_path / name / "results").iterdir())
    call(evaluate_attribution.main, *options, "--out", "whole")
    whole, copied, moved = (
        read_rows(tmp_path / name / "results").to_pandas() for name in ("whole", "copied", "elsewhere")
    )
    pd.testing.assert_frame_equal(copied, whole)
    pd.testing.assert_frame_equal(moved, whole)
    of_an_older_version = yaml.safe_load((tmp_path / "copied/config.yaml").read_text())
    of_an_older_version["model"]["overlay"] = True
    (tmp_path / "copied/config.yaml").write_text(yaml.safe_dump(of_an_older_version))
    with pytest.raises(RunError, match=r"model\.overlay was True, is now not given\. Give this one another --out"):
        call(evaluate_attribution.main, *options, "--out", "copied")
