"""Runs that are killed, at any moment and in any way, end in one sentence, with the rows of those that were not."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import evaluate_attribution
import pytest

from datamodules import pack_folder
from lightning_modules.running.folder import run_folder
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.stopping import FIRST_PROCESS, WRITTEN

from .blows import (
    ATTRIBUTION,
    EVALUATIONS,
    NORMAL,
    Blow,
    Evaluation,
    Whole,
    assert_begun,
    assert_ended,
    blow,
    figures_of,
    is_alive,
    parts_of,
    rows_of,
    sleepy_args,
    strike,
    summary_of,
    wait_for,
)
from .processes import SCRIPTS, Run

pytestmark = pytest.mark.faults

N_IMAGES = 13  # not a multiple of anything
N_MOMENTS = int(os.environ.get("VGG_LENS_MOMENTS", "6"))
"""How many moments runs are killed at; 40 take ten minutes."""


@pytest.fixture(scope="module")
def images(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders, and one of the same images in shards."""
    root = tmp_path_factory.mktemp("images")
    for path in sorted((shapes / "val").glob("*/*"))[: 6 * N_IMAGES : 6]:
        (root / "folder" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "folder" / path.parent.name)
    pack_folder(root / "folder", root / "shards", images_per_shard=5)
    return root


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Evaluation], Whole]:
    known: dict[Evaluation, Whole] = {}

    def whole(evaluation: Evaluation) -> Whole:
        if evaluation not in known:
            folder = tmp_path_factory.mktemp("whole")
            run = Run(evaluation.script, evaluation.args(images), folder)
            wait_for(run.has_begun, run)
            start = time.monotonic()
            assert run.wait() == [0], run.output()
            seconds = time.monotonic() - start
            assert [line for line in run.logs[1].read_text().splitlines() if not NORMAL.fullmatch(line)] == []
            known[evaluation] = Whole(rows_of(folder), summary_of(folder), figures_of(folder), seconds)
        return known[evaluation]

    return whole


@pytest.mark.slow
@pytest.mark.parametrize("k", range(-(-N_MOMENTS // 2)))
def test_killed_at_random_moments(k: int, whole: Callable[[Evaluation], Whole], images: Path, tmp_path: Path) -> None:
    """Two moments of a run that goes on after each, and then to its end in one process."""
    evaluation, world = EVALUATIONS[k % len(EVALUATIONS)], 1 + (k % 5 in (1, 3))
    expected, chance = whole(evaluation), random.Random(k)
    for moment in range(2):
        strike(evaluation, images, tmp_path, world, blow(chance, world, moment), expected)
    run = Run(evaluation.script, evaluation.args(images), tmp_path)
    assert run.wait() == [0], run.output()
    assert_ended(tmp_path, expected, exact=world == 1)


def test_what_is_computed_is_flushed(
    images: Path, tmp_path: Path, call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At SIGTERM in the middle of a batch; while it is running, another run into the same RUN is refused."""
    args = sleepy_args(images, tmp_path)
    run = Run("evaluate_attribution", args, tmp_path)
    wait_for((tmp_path / "asleep_0").exists, run)
    assert not parts_of(tmp_path)
    monkeypatch.setattr(run_folder, "WAIT_S", 0.5)
    with pytest.raises(RunError, match=rf"run is being written by process {run.processes[0].pid} on .*, since 20"):
        call(evaluate_attribution.main, *args)
    run.kill(signal.SIGTERM)
    assert run.wait() == [143]
    left = "Rows of 4 of 13 images are written; what was begun of 2 more is lost. The same command goes on from there."
    assert f"stopped by SIGTERM. {left}\n" in run.logs[1].read_text()
    assert len(rows_of(tmp_path)) == 4  # two batches
    (tmp_path / "go").touch()
    assert Run("evaluate_attribution", args, tmp_path).wait() == [0]
    assert len(rows_of(tmp_path)) == N_IMAGES
    produced_by = json.loads((tmp_path / "run/summary.json").read_text())["produced_by"]
    assert produced_by["sessions"] == 2
    assert len(produced_by["weights_sha256"]) == 64
    assert produced_by["data"]["n_images"] == N_IMAGES
    assert produced_by["versions"]["torch"]
    assert len(produced_by["devices"]) == 1


def test_slow_methods_in_one_batch(shapes: Path, tmp_path: Path) -> None:
    """At SIGTERM in the middle of it, the images that are finished have their rows."""
    (tmp_path / "folder").symlink_to(shapes / "val")
    slow = ["--model.methods", "[ScoreCAM, sleepy_methods.Sleepy]", "--model.metrics", "[]"]
    args = [*sleepy_args(tmp_path, tmp_path, call=2), *slow, "--data.sample", 4, "--data.batch_size", 4]
    run = Run("evaluate_attribution", args, tmp_path)
    wait_for((tmp_path / "asleep_0").exists, run)
    run.kill(signal.SIGTERM)
    assert run.wait() == [143]
    left = r"Rows of 1 of 4 images are written; what was begun of \d+ more is lost\. The same command goes on .*"
    assert re.fullmatch(rf"stopped by SIGTERM\. {left}", run.logs[1].read_text().splitlines()[-1])
    assert "passes of the network (ScoreCAM 128)" in run.logs[0].read_text()
    assert len(rows_of(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["first", "other"])
def test_one_of_two_processes_is_killed(images: Path, tmp_path: Path, victims: Literal["first", "other"]) -> None:
    """The other one ends too, and writes what it has."""
    blow = Blow(signal.SIGKILL, victims, None, 0)
    two = Run("evaluate_attribution", [*sleepy_args(images, tmp_path), "--trainer.devices", 2], tmp_path)
    wait_for(lambda: (tmp_path / "asleep_0").exists() and (tmp_path / "asleep_1").exists(), two)
    family = two.family()
    blow.fall(two, tmp_path)
    codes = two.wait()
    wait_for(lambda: not any(map(is_alive, family)), two)
    assert codes == [-9 if victims == "first" else 1]
    assert blow.allowed()[codes[0]].fullmatch(two.logs[1].read_text().splitlines()[-1])
    assert len(rows_of(tmp_path)) == 4  # two batches of its share
    assert len(parts_of(tmp_path)) == 1


PARENT = f"""
import os, subprocess, sys
os.environ[{FIRST_PROCESS!r}] = str(os.getpid())
subprocess.run(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it waits for as long as it may")
def test_the_first_process_dies_before_the_others_have_joined(images: Path, tmp_path: Path) -> None:
    args = [*ATTRIBUTION.args(images), "--trainer.devices", 2]
    command = [sys.executable, str(SCRIPTS / "evaluate_attribution.py"), *map(str, args)]
    ranks = {"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    log = tmp_path / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-c", PARENT, *command],
            cwd=tmp_path,
            stdout=file,
            stderr=file,
            env={**os.environ, **ranks},
        ) as first,
    ):
        wait_for(lambda: "Initializing distributed" in log.read_text())
        (other,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        first.kill()
    wait_for(lambda: not is_alive(int(other)))


def test_a_full_disk(whole: Callable[[Evaluation], Whole], images: Path, tmp_path: Path) -> None:
    args = ATTRIBUTION.args(images)
    run = Run(ATTRIBUTION.script, args, tmp_path, rows_per_part=8, largest_file=20_000)
    assert run.wait() == [2]
    (told,) = [line for line in run.logs[1].read_text().splitlines() if not NORMAL.fullmatch(line)]
    assert re.fullmatch(rf"error: \[Errno 27\] File too large: 'run/figures/.*\.png'\. {WRITTEN}", told)
    assert_begun(tmp_path, whole(ATTRIBUTION).rows)
    run = Run(ATTRIBUTION.script, args, tmp_path)
    assert run.wait() == [0], run.output()
    assert_ended(tmp_path, whole(ATTRIBUTION))
