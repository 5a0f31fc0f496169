"""Runs that are killed: the evaluations, the blows, and what may be left and said after one."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from lightning_modules.results.storage import read_rows
from lightning_modules.results.summaries.synthesis import MEASURED

from .processes import Run

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


ALL = 1_000_000


class Blow(NamedTuple):
    """How a run is killed.

    Attributes:
        signum: The signal.
        victims: Who gets it: all processes and their workers, twice where a person is impatient, or one process.
        n_parts: After how many more parts it comes, or :data:`ALL` of them ...
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

    def allowed(self) -> dict[int, re.Pattern[str]]:
        """The exit codes that it may lead to -> what may then stand in stderr."""
        goes_on = rf"( {OUTLOOK})?"
        if self.signum != signal.SIGKILL:
            ended = {128 + self.signum: rf"stopped by {self.signum.name}\.{goes_on}"}
        elif self.victims == "other":
            ended = {1: rf"Process 1 of the run was killed by signal 9, as where memory is short\.{goes_on}"}
        elif self.victims == "first":
            ended = {-self.signum: rf"(The first process of the run has ended\.{goes_on})?"}
        else:
            ended = {-self.signum: ""}
        return {code: re.compile(words) for code, words in ({0: ""} | ended).items()}  # 0: it had ended


OUTLOOK = (
    r"Rows of \d+( of \d+)? images are written(; what was begun of \d+ more is lost)?\. The same command goes on .*"
)


def blow(chance: random.Random, world: int, k: int) -> Blow:
    """In turns soon after a part, however fast the machine is at the time, and at any moment at all."""
    signum = chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    victims = ["all", "first", *(["other"] if world > 1 else [])]
    if signum != signal.SIGKILL:
        victims += ["all, twice"]
    return Blow(signum, chance.choice(victims), chance.choice([1, 2, ALL]) if k % 2 else None, chance.uniform(0, 1.1))


NORMAL = re.compile(
    "GPU available: .*|Initializing distributed: .*|-*|distributed_backend=gloo|All distributed processes registered.*"
)
"""What a run that nobody disturbs says in stderr."""


def strike(evaluation: Evaluation, images: Path, folder: Path, world: int, blow: Blow, whole: Whole) -> None:
    """Runs until the blow falls, and asks that what is left and said then is as it should be."""
    args = [*evaluation.args(images), "--trainer.devices", world]
    (folder / "launched").unlink(missing_ok=True)
    at_first = parts_of(folder)

    def n_rows(parts: Iterable[str]) -> int:
        return sum(pq.read_metadata(folder / "run/results" / name).num_rows for name in parts)

    def has_come(n_parts: int) -> bool:
        parts = parts_of(folder)
        return len(parts) >= n_parts or (len(parts) > len(at_first) and n_rows(parts) == len(whole.rows))

    run = Run(evaluation.script, args, folder, rows_per_part=1 if blow.n_parts else 8)
    wait_for(run.has_begun, run)
    if blow.n_parts:
        wait_for(lambda: has_come(len(at_first) + blow.n_parts) or run.has_ended(), run)
    else:
        time.sleep(blow.moment * whole.seconds)
    before, family = parts_of(folder), run.family()
    blow.fall(run, folder)
    (code,) = run.wait()
    wait_for(lambda: not any(map(is_alive, family)))
    told = "\n".join(line for line in run.logs[1].read_text().splitlines() if not NORMAL.fullmatch(line))
    allowed = blow.allowed()
    assert code in allowed, f"{blow}: {code}: {run.output()}"
    assert allowed[code].fullmatch(told), f"{blow}: {code}: {told}"
    assert before.items() <= parts_of(folder).items()
    assert_begun(folder, whole.rows, exact=world == 1)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended has no command line, also while nobody has asked for its exit code."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], run: Run | None = None) -> None:
    end = time.monotonic() + 250
    while not condition():
        assert time.monotonic() < end, run.output() if run else "waited too long"
        time.sleep(0.02)


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
        if Sleepy.calls == {call} and not Path("go").exists():
            Path(f"asleep_{rank}").touch()
            end = time.monotonic() + 250
            while not Path("go").exists() and time.monotonic() < end:
                time.sleep(0.1)
        return super().__call__(forward_pass)
"""


def sleepy_args(images: Path, folder: Path, call: int = 3) -> list[object]:
    """A run in which a method waits for a file named go: at the third batch, or another one of its calls."""
    (folder / "sleepy_methods.py").write_text(SLEEPY.replace("{call}", str(call)))
    return ATTRIBUTION._replace(options=("--model.methods", "[sleepy_methods.Sleepy]")).args(images)
