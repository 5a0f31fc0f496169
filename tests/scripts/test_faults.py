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
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import evaluate_attribution
import pandas as pd
import pytest

from datamodules import pack_folder
from lightning_modules.results.rows.parts import read_rows
from lightning_modules.results.summaries.synthesis import MEASURED
from lightning_modules.running.folder import run_folder
from lightning_modules.running.folder.run_folder import RunError
from lightning_modules.running.stopping import COMPUTED, WRITTEN

from .processes import SCRIPTS, Run

pytestmark = pytest.mark.faults

N_IMAGES = 13  # not a multiple of anything
N_MOMENTS = int(os.environ.get("VGG_LENS_MOMENTS", "6"))
"""How many moments runs are killed at; 40 take a quarter of an hour."""

SMOOTH = "{class_path: SmoothGrad, init_args: {n_samples: 2}}"


class Evaluation(NamedTuple):
    """What is run.

    Attributes:
        script: The script.
        options: Its own options.
        source: What the images lie in; None = they are made.
    """

    script: str
    options: tuple[object, ...]
    source: Literal["folder", "shards", None]

    def args(self, images: Path) -> list[object]:
        read = ("--data.root", images / str(self.source), "--data.num_workers", 2, "--data.batch_size", 2)
        common = ("--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run", "--model.n_figures", 1)
        return [*(read if self.source else ()), *self.options, *common]


ATTRIBUTION = Evaluation("evaluate_attribution", ("--model.methods", f"[GradCAM, {SMOOTH}]"), "folder")
ROBUSTNESS = Evaluation("evaluate_robustness", ("--model.eps", "[4/255]"), "shards")
MAXIMIZATION = Evaluation("maximize_activation", ("--data.n_images", 2, "--model.steps", 2, "--model.n_fresh", 1), None)
EVALUATIONS = [ATTRIBUTION, ROBUSTNESS, MAXIMIZATION]
EVALUATIONS += [ATTRIBUTION._replace(source="shards"), ROBUSTNESS._replace(source="folder"), MAXIMIZATION]


class Whole(NamedTuple):
    """A run that was never interrupted."""

    rows: pd.DataFrame
    summary: dict[str, Any]
    figures: list[str]
    seconds: float


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


def assert_same(ours: pd.DataFrame, theirs: pd.DataFrame, exact: bool) -> None:
    """To the last bit, or, where the images were shared out to processes, to what batches of other sizes round."""
    options: dict[str, Any] = {"check_exact": True} if exact else {"rtol": 1e-5, "atol": 1e-6}
    pd.testing.assert_frame_equal(ours.reset_index(drop=True), theirs.reset_index(drop=True), **options)


def assert_begun(folder: Path, whole: pd.DataFrame, exact: bool = True) -> int:
    """What a killed run has left is a part of the whole, and none of it twice; returns its length."""
    rows = rows_of(folder)
    if len(rows):
        assert_same(rows, whole[whole["path"].isin(rows["path"])], exact)
    return len(rows)


def assert_ended(folder: Path, whole: Whole, exact: bool = True) -> None:
    assert_same(rows_of(folder), whole.rows, exact)
    if exact:
        assert summary_of(folder) == whole.summary
    assert figures_of(folder) == whole.figures
    assert not list((folder / "run").rglob("*.tmp"))


class Blow(NamedTuple):
    """How a run is killed.

    Attributes:
        signum: The signal.
        victims: Who gets it: all processes and their workers, twice where a person is impatient, or one process.
        n_parts: After how many more parts it comes ...
        moment: ... or after which share of the time of a whole run.
    """

    signum: signal.Signals
    victims: Literal["all", "all, twice", "first", "other"]
    n_parts: int | None
    moment: float

    def fall(self, run: Run, folder: Path) -> None:
        if self.victims.startswith("all"):
            run.kill(self.signum)
            if self.victims == "all, twice":
                time.sleep(0.05)
                run.kill(self.signum)
        elif self.victims == "first" or (folder / "launched").exists():
            victim = run.processes[0].pid if self.victims == "first" else int((folder / "launched").read_text())
            with suppress(ProcessLookupError):  # it has ended
                os.kill(victim or 0, self.signum)

    def allowed(self) -> dict[int, list[str]]:
        """The exit codes that it may lead to -> what may then stand in stderr."""
        name, stopped = self.signum.name, 128 + self.signum
        if self.signum != signal.SIGKILL:
            told = {stopped: [f"stopped by {name}.", f"stopped by {name}. {COMPUTED}"]}
        elif self.victims == "other":
            died = "Process 1 of the run was killed by signal 9, as where memory is short."
            told = {1: [died, f"{died} {COMPUTED}"]}
        else:
            first = "The first process of the run has ended."
            told = {-self.signum: ["", *([first, f"{first} {COMPUTED}"] if self.victims == "first" else [])]}
        return {0: [""], **told}  # 0: it had ended


def blow(chance: random.Random, world: int, k: int) -> Blow:
    """In turns soon after a part, however fast the machine is at the time, and at any moment at all."""
    signum = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    victims = ["all", "first", *(["other"] if world > 1 else [])]
    if signum != signal.SIGKILL:
        victims += ["all, twice"]
    return Blow(signum, chance.choice(victims), chance.choice([1, 2]) if k % 2 else None, chance.uniform(0, 1.1))


NORMAL = re.compile(
    "GPU available: .*|Initializing distributed: .*|-*|distributed_backend=gloo|All distributed processes registered.*"
)
"""What a run that nobody disturbs says in stderr."""


def strike(evaluation: Evaluation, images: Path, folder: Path, world: int, blow: Blow, whole: Whole) -> int:
    """Runs until the blow falls; returns how many rows there are then."""
    args = [*evaluation.args(images), "--trainer.devices", world]
    (folder / "launched").unlink(missing_ok=True)
    before = parts_of(folder)
    run = Run(evaluation.script, args, folder, rows_per_part=1 if blow.n_parts else 8)
    wait_for(run.has_begun, run)
    if blow.n_parts:
        wait_for(lambda: len(parts_of(folder)) >= len(before) + blow.n_parts or run.has_ended(), run)
    else:
        time.sleep(blow.moment * whole.seconds)
    before, family = parts_of(folder), run.family()
    blow.fall(run, folder)
    (code,) = run.wait()
    wait_for(lambda: not any(map(is_alive, family)), seconds=10)
    told = "\n".join(line for line in run.logs[1].read_text().splitlines() if not NORMAL.fullmatch(line))
    allowed = blow.allowed()
    assert code in allowed, f"{blow}: {code}: {run.output()}"
    assert told in allowed[code], f"{blow}: {code}: {told}"
    assert before.items() <= parts_of(folder).items()
    return assert_begun(folder, whole.rows, exact=world == 1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended has no command line, also while nobody has asked for its exit code."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


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
    return ATTRIBUTION._replace(options=("--model.methods", "[sleepy_methods.Sleepy]")).args(images)


def wait_for(condition: Callable[[], bool], run: Run | None = None, seconds: float = 250) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, run.output() if run else "waited too long"
        time.sleep(0.02)


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
    assert f"stopped by SIGTERM. {COMPUTED}\n" in run.logs[1].read_text()
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
    wait_for(lambda: not any(map(is_alive, family)), two, seconds=10)
    assert codes == [-9 if victims == "first" else 1]
    assert two.logs[1].read_text().splitlines()[-1] == blow.allowed()[codes[0]][-1]
    assert len(rows_of(tmp_path)) == 4  # two batches of its share
    assert len(parts_of(tmp_path)) == 1


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
