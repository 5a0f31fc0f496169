"""Runs that are killed, at any moment and in any way, end with the rows of those that were not."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import evaluate_attribution
import pandas as pd
import pytest

from lightning_modules.results.rows import read_rows
from lightning_modules.results.synthesis import MEASURED
from lightning_modules.running import run_folder
from lightning_modules.running.run_folder import RunError

from .processes import SCRIPTS, Run

pytestmark = pytest.mark.faults

N_IMAGES = 37
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


class Evaluation(NamedTuple):
    """What is run.

    Attributes:
        script: The script.
        options: Its own options.
        chains: How many runs of it are killed again and again. What writes and continues is the same for all scripts.
    """

    script: str
    options: tuple[object, ...]
    chains: int = 1

    def args(self, images: Path) -> list[object]:
        root = () if self.script == "maximize_activation" else ("--data.root", images, "--data.num_workers", 2)
        return [*root, *self.options, "--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]


SMOOTH = "{class_path: SmoothGrad, init_args: {n_samples: 2}}"
EVALUATIONS = [
    Evaluation(
        "evaluate_attribution",
        ("--data.batch_size", 7, "--model.methods", f"[GradCAM, {SMOOTH}]", "--model.n_figures", 2),
        chains=3,
    ),
    Evaluation("evaluate_robustness", ("--data.batch_size", 7, "--model.eps", "[4/255]", "--model.n_figures", 1)),
    Evaluation(
        "maximize_activation", ("--data.n_images", 2, "--model.steps", 2, "--model.n_fresh", 1, "--model.n_figures", 1)
    ),
]
ATTRIBUTION = EVALUATIONS[0]
each_evaluation = pytest.mark.parametrize("evaluation", EVALUATIONS, ids=lambda evaluation: evaluation.script)


class Whole(NamedTuple):
    """A run that was never interrupted."""

    rows: pd.DataFrame
    summary: dict[str, Any]
    figures: list[str]
    seconds: float


@pytest.fixture(scope="module")
def images(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 images: not a multiple of anything."""
    folder = tmp_path_factory.mktemp("images")
    for k, path in enumerate(sorted((shapes / "val").glob("*/*"))):
        if k % 10 < 5 and k < 72:
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Evaluation], Whole]:
    known: dict[Evaluation, Whole] = {}

    def whole(evaluation: Evaluation) -> Whole:
        if evaluation not in known:
            for _ in range(1 if known else 2):  # the very first one waits for the server of the processes
                folder = tmp_path_factory.mktemp("whole")
                start = time.monotonic()
                run = Run(evaluation.script, evaluation.args(images), folder)
                assert run.wait() == [0], run.output()
                seconds = time.monotonic() - start
            known[evaluation] = Whole(rows_of(folder), summary_of(folder), figures_of(folder), seconds)
        return known[evaluation]

    return whole


def rows_of(folder: Path) -> pd.DataFrame:
    frame = read_rows(folder / "run/results").to_pandas()
    return frame.drop(columns=list(MEASURED), errors="ignore")


def summary_of(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "run/summary.json").read_text())
    for numbers in summary.get("variants", {}).values():
        for name in MEASURED:
            del numbers[name]
    assert summary.pop("produced_by")["wall_time_s"] > 0
    return summary


def figures_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run/figures").iterdir())


def parts_of(folder: Path) -> dict[str, int]:
    """The parts of a run, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "run/results").glob("part-*.parquet")}


def assert_begun(folder: Path, whole: pd.DataFrame) -> int:
    """What a killed run has left is a part of the whole, to the last bit, and none of it twice; returns its length."""
    rows = rows_of(folder)
    if len(rows):
        begun = whole[whole["path"].isin(rows["path"])]
        pd.testing.assert_frame_equal(rows.reset_index(drop=True), begun.reset_index(drop=True), check_exact=True)
    return len(rows)


def assert_ended(folder: Path, whole: Whole, exact: bool = True) -> None:
    options: dict[str, Any] = {"check_exact": True} if exact else {"rtol": 1e-5, "atol": 1e-6}
    pd.testing.assert_frame_equal(rows_of(folder), whole.rows, **options)
    if exact:
        assert summary_of(folder) == whole.summary
    assert figures_of(folder) == whole.figures
    assert not list((folder / "run").rglob("*.tmp"))


def chain(
    evaluation: Evaluation, args: Sequence[object], whole: Whole, folder: Path, seed: int, world: int = 1, n: int = 4
) -> list[int]:
    """Kills a run ``n`` times and lets it end; returns how many rows there were after each kill."""
    chance = random.Random(f"{evaluation.script} {seed}")
    lengths = []
    folder.mkdir()
    for k in range(n):
        # In turns: soon after a part, however fast the machine is at the time, and at any moment at all.
        after_a_part = k % 2 == 0
        before = parts_of(folder)
        run = Run(
            evaluation.script, args, folder, world, rows_per_part=1 if after_a_part else chance.choice([1, 20, 60])
        )
        if after_a_part:
            wait_for_parts(run, folder, len(before) + chance.randint(1, 2))
            time.sleep(chance.uniform(0.0, 0.1))
        else:
            time.sleep(chance.uniform(0.2, 1.0) * whole.seconds)
        before = parts_of(folder)
        signum = chance.choice(SIGNALS)
        run.kill(signum)
        codes = run.wait()
        # It had ended, or ended by the signal. Ctrl-C may come while Python itself is at work, which gives 1, and so
        # does the end of one of two processes in the other.
        is_rough = "KeyboardInterrupt" in run.output() if signum == signal.SIGINT else world > 1
        allowed = {0, -signum, 128 + signum} | ({1} if is_rough else set())
        assert set(codes) <= allowed, f"{signum}: {codes}: {run.output()}"
        lengths.append(assert_begun(folder, whole.rows) if world == 1 else len(rows_of(folder)))
        assert before.items() <= parts_of(folder).items()
    before = parts_of(folder)
    run = Run(evaluation.script, args, folder, world)
    assert run.wait() == [0] * world, run.output()
    assert before.items() <= parts_of(folder).items()
    return lengths


def wait_for_parts(run: Run, folder: Path, n: int) -> None:
    """Waits until there are ``n`` parts, or the run has ended."""
    wait_for(lambda: len(parts_of(folder)) >= n or run.has_ended(), run)


@each_evaluation
def test_killed_at_random_moments(
    evaluation: Evaluation, whole: Callable[[Evaluation], Whole], images: Path, tmp_path: Path
) -> None:
    expected = whole(evaluation)
    folders = [tmp_path / f"chain_{k}" for k in range(evaluation.chains)]

    def one(k: int) -> list[int]:
        return chain(evaluation, evaluation.args(images), expected, folders[k], k)

    with ThreadPoolExecutor(2) as pool:
        lengths = [length for lengths in pool.map(one, range(evaluation.chains)) for length in lengths]
    assert len(lengths) == 4 * evaluation.chains
    # The kills came at moments that matter: some before the first row, some between the first and the last.
    assert any(0 < length < len(expected.rows) for length in lengths), lengths
    for folder in folders:
        assert_ended(folder, expected)


@pytest.mark.slow
def test_two_processes_killed_and_continued_by_one(
    whole: Callable[[Evaluation], Whole], images: Path, tmp_path: Path
) -> None:
    expected = whole(ATTRIBUTION)
    args = [*ATTRIBUTION.args(images), "--trainer.devices", 2]
    # To the last bit where the device count is the same: also of two.
    folder = tmp_path / "whole"
    folder.mkdir()
    run = Run(ATTRIBUTION.script, args, folder, world=2)
    assert run.wait() == [0, 0], run.output()
    of_two = Whole(rows_of(folder), summary_of(folder), figures_of(folder), expected.seconds * 2)
    assert_ended(folder, expected, exact=False)
    chain(ATTRIBUTION, args, of_two, tmp_path / "two", 0, world=2, n=2)
    assert_ended(tmp_path / "two", of_two)
    # Another number of devices goes on from there.
    folder = tmp_path / "one"
    folder.mkdir()
    run = Run(ATTRIBUTION.script, args, folder, world=2, rows_per_part=1)
    wait_for_parts(run, folder, 3)
    run.kill(signal.SIGKILL)
    run.wait()
    run = Run(ATTRIBUTION.script, ATTRIBUTION.args(images), folder)
    assert run.wait() == [0], run.output()
    assert_ended(folder, expected, exact=False)


SLEEPY = """
import os
import time
from pathlib import Path

from lightning_modules import GradCAM


class Sleepy(GradCAM):
    calls = 0

    def __call__(self, forward_pass):
        Sleepy.calls += 1
        rank = os.environ.get("LOCAL_RANK", "0")
        if Sleepy.calls == 3 and not Path("go").exists():
            Path(f"asleep_{rank}").touch()
            end = time.monotonic() + 250
            while not Path("go").exists() and time.monotonic() < end:
                time.sleep(0.1)
        return super().__call__(forward_pass)
"""


def sleepy_args(images: Path, folder: Path) -> list[object]:
    """A run whose third batch waits for a file named go."""
    (folder / "sleepy_methods.py").write_text(SLEEPY)
    options = ("--data.batch_size", 7, "--model.methods", "[sleepy_methods.Sleepy]", "--model.n_figures", 0)
    return Evaluation("evaluate_attribution", options).args(images)


def wait_for(condition: Callable[[], bool], run: Run | None = None, seconds: float = 250) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, run.output() if run else "waited too long"
        time.sleep(0.02)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_is_computed_is_flushed(signum: int, code: int, images: Path, tmp_path: Path) -> None:
    args = sleepy_args(images, tmp_path)
    run = Run("evaluate_attribution", args, tmp_path)
    wait_for((tmp_path / "asleep_0").exists, run)
    assert not parts_of(tmp_path)
    run.kill(signum)
    assert run.wait() == [code]
    assert f"stopped by {signal.Signals(signum).name}. What was computed is written" in run.output()
    assert len(rows_of(tmp_path)) == 14  # two batches
    (tmp_path / "go").touch()
    assert Run("evaluate_attribution", args, tmp_path).wait() == [0]
    assert len(rows_of(tmp_path)) == N_IMAGES
    produced_by = json.loads((tmp_path / "run/summary.json").read_text())["produced_by"]
    assert produced_by["sessions"] == 2
    assert len(produced_by["weights_sha256"]) == 64
    assert produced_by["data"]["n_images"] == N_IMAGES
    assert produced_by["versions"]["torch"]
    assert len(produced_by["devices"]) == 1


def test_a_run_that_is_being_written_is_refused(
    images: Path, tmp_path: Path, call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = sleepy_args(images, tmp_path)
    run = Run("evaluate_attribution", args, tmp_path)
    wait_for((tmp_path / "asleep_0").exists, run)
    monkeypatch.setattr(run_folder, "WAIT_S", 0.5)
    with pytest.raises(RunError, match=rf"run is being written by process {run.processes[0].pid} on .*, since 20"):
        call(evaluate_attribution.main, *args)
    run.kill(signal.SIGKILL)
    run.wait()
    (tmp_path / "go").touch()
    call(evaluate_attribution.main, *args)
    assert len(rows_of(tmp_path)) == N_IMAGES


@pytest.mark.slow
def test_the_first_process_dies_alone(images: Path, tmp_path: Path) -> None:
    """The other one ends too, and writes what it has; the same command goes on."""
    args = [*sleepy_args(images, tmp_path), "--trainer.devices", 2]
    two = Run("evaluate_attribution", args, tmp_path)  # which starts the other one, as Lightning does it
    wait_for(lambda: (tmp_path / "asleep_0").exists() and (tmp_path / "asleep_1").exists(), two)
    two.processes[0].kill()
    wait_for(lambda: len(parts_of(tmp_path)) == 1)
    assert len(rows_of(tmp_path)) == 14  # two batches of its share
    (tmp_path / "go").touch()
    one = Run("evaluate_attribution", sleepy_args(images, tmp_path), tmp_path)
    assert one.wait() == [0], one.output()
    rows = rows_of(tmp_path)
    assert len(rows) == rows["path"].nunique() == N_IMAGES
    assert len(parts_of(tmp_path)) == 2


PARENT = "import subprocess, sys; subprocess.run(sys.argv[1:])"


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
    # What has ended has no command line, also while nobody has asked for its exit code.
    wait_for(lambda: not Path(f"/proc/{other}").exists() or not Path(f"/proc/{other}/cmdline").read_bytes())


def test_a_full_disk(whole: Callable[[Evaluation], Whole], images: Path, tmp_path: Path) -> None:
    args = ATTRIBUTION.args(images)
    # Workers would share memory through such files.
    alone = [*args, "--data.num_workers", 0]
    run = Run(ATTRIBUTION.script, alone, tmp_path, rows_per_part=8, largest_file=20_000)
    assert run.wait() == [2]
    last = run.output().splitlines()[-1]
    assert last.startswith("error: [Errno 27] File too large")
    assert last.endswith("What was written is whole; the same command goes on from there.")
    assert_begun(tmp_path, whole(ATTRIBUTION).rows)
    run = Run(ATTRIBUTION.script, args, tmp_path)
    assert run.wait() == [0], run.output()
    assert_ended(tmp_path, whole(ATTRIBUTION))
