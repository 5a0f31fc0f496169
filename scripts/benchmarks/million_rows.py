"""How that which is done once a run grows with its images, to a million: from their listing to runs compared."""

from __future__ import annotations

import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.timing import OURS, Goal, Result, compare
from datamodules import ImageFolderDataModule
from datamodules.walk import hash_files
from lightning_modules import AttributionModule, GradCAM, GuidedBackprop, GuidedGradCAM, RobustnessModule, SmoothGrad
from lightning_modules.evaluation import EvaluationModule
from lightning_modules.figures.saving import save_figure
from lightning_modules.pages.runs import page_of_run
from lightning_modules.pages.told import Told
from lightning_modules.results.rows.parts import done_paths
from lightning_modules.results.rows.stored import StoredRows
from lightning_modules.running import run_comparison
from lightning_modules.running.folder.board import Board
from lightning_modules.running.folder.run_folder import FORMAT

SIZES = (12_000, 120_000, 1_200_000)
N_CLASSES, ROWS_PER_PART = 1000, 8192
PROPORTIONAL, MOST_SECONDS, MOST_MEMORY = "ten times that of a tenth", "10 s", "1 GB"


def million() -> list[Result]:
    """Processor time and peak memory of each job at each size, once, in a process of its own."""
    methods = [GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad()]
    attribution, robustness = AttributionModule("shapes", methods), RobustnessModule("shapes")
    found: dict[str, list[Cost]] = {}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            tree, maps, others, attacks = (Path(folder) / name for name in ("tree", "maps", "others", "attacks"))
            labels = _write_tree(tree, n)
            for run in (maps, others):
                _write_rows(run / "results", attribution, n, {"method": list(attribution.methods)}, seed=len(run.name))
                _finish(run, attribution)
            _write_rows(attacks / "results", robustness, n, {"eps": [0.0, *robustness.eps]})
            jobs: dict[str, Callable[[], Any]] = {
                "listing the files": partial(_list, tree, set),
                "listing them, labelled by a file": partial(_list, tree, set, labels),
                "what tells files of boxes from others": partial(hash_files, tree, ".JPEG"),
                "reading what is done, of four methods": partial(done_paths, maps / "results"),
                "listing what is left to do": partial(_list, tree, partial(done_paths, maps / "results")),
                "summary of attribution, four methods": partial(_summarize, attribution, maps),
                "summary of robustness, four budgets": partial(_summarize, robustness, attacks),
                "TensorBoard, written and read": partial(_show, attribution, maps),
                "the page": partial(_write_page, maps),
                "two runs of four methods compared": partial(_compare, maps, others),
            }
            for name, job in jobs.items():
                found.setdefault(name, []).append(cost_of(job))
    results = []
    for name, costs in found.items():
        for n, before, now in zip(SIZES[1:], costs, costs[1:]):
            is_last = n == SIZES[-1]
            work, proportional = f"{name}: {n:,} images", Goal(PROPORTIONAL, at_most=1.2)
            seconds = {OURS: [now.seconds], PROPORTIONAL: [10 * before.seconds], MOST_SECONDS: [10.0]}
            memory = {OURS: [now.gigabytes], PROPORTIONAL: [10 * before.gigabytes], MOST_MEMORY: [1.0]}
            goals = [proportional, *([Goal(MOST_SECONDS, at_most=1.0)] if is_last else [])]
            results += compare("million", work, seconds, goals)
            if is_last:
                goals = [proportional, Goal(MOST_MEMORY, at_most=1.0)]
                results += compare("million", f"{work}, memory", memory, goals, unit="GB")
    return results


class Cost(NamedTuple):
    """What a job took: processor time, and how much its memory grew at most."""

    seconds: float
    gigabytes: float


def cost_of(job: Callable[[], Any]) -> Cost:
    """Does a job in a process that is forked for it."""
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)

    def measure() -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, start = _memory("VmRSS"), time.process_time()
        with redirect_stdout(io.StringIO()):
            job()
        sender.send(Cost(time.process_time() - start, max(_memory("VmHWM") - before, 1e-6)))

    process = multiprocessing.get_context("fork").Process(target=measure)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _memory(kind: str) -> float:
    """Resident memory of this process in GB: now (VmRSS), or at its peak (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{kind}:"))) * 1024 / 1e9


def _list(tree: Path, read_done: Callable[[], set[str]], labels: Path | None = None) -> None:
    """As a run does that begins, or goes on; with what tells its images from others."""
    data = ImageFolderDataModule(
        str(tree), batch_size=32, num_workers=0, labels=None if labels is None else str(labels)
    )
    data.begin_run(tree.parent, read_done, 1.0)
    data.prepare_data()
    data.setup("test")
    data.fingerprint()


def _summarize(module: EvaluationModule, run: Path) -> None:
    module.summarize(StoredRows(run / "results"))


def _show(module: EvaluationModule, run: Path) -> None:
    """The report that TensorBoard gets at the end, and its way into TensorBoard's own memory."""
    summary = json.loads((run / "summary.json").read_text())
    board = Board(run / "tensorboard", run / "figures")
    board.show_figures()
    board.show_report(module.report(summary), "", {})
    board.close()
    EventAccumulator(str(run / "tensorboard")).Reload()


def _write_page(run: Path) -> None:
    page_of_run(run, []).write(run / "index.html")


def _compare(first: Path, second: Path) -> None:
    options = ["--out", str(first.parent / "compared"), "--overwrite"]
    run_comparison(description=None, args=[str(first), str(second), *options])


def _path(k: int) -> str:
    return f"c{k % N_CLASSES:04d}/{k:08d}.JPEG"


def _write_tree(tree: Path, n: int) -> Path:
    """A folder of empty files: they are listed, and not read; returns a file of their labels."""
    for label in range(N_CLASSES):
        (tree / f"c{label:04d}").mkdir(parents=True)
    labels = tree.parent / "labels.csv"
    with labels.open("w") as file:
        file.write("path,class\n")
        for k in range(n):
            (tree / _path(k)).touch()
            file.write(f"{_path(k)},c{k % N_CLASSES:04d}\n")
    return labels


def _finish(run: Path, module: EvaluationModule) -> None:
    """What a run has beside its rows when it has come to its end."""
    summary = module.summarize(StoredRows(run / "results"))
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "sessions.json").write_text(json.dumps([{"format": FORMAT, "ended": 0}]))
    (run / "inputs.json").write_text("{}")
    (run / "config.yaml").write_text("model: {}\n")
    Told.by(module.report(summary), [], "").save(run)
    for name, figure in module.run_figures(summary, run):
        save_figure(figure, run / "figures", name)


def _write_rows(folder: Path, module: EvaluationModule, n: int, several: dict[str, list[Any]], seed: int = 0) -> None:
    """Rows of ``n`` images with random numbers, for each of the several values of a column; one image failed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    ((name, of_column),) = several.items()
    per_part = ROWS_PER_PART // len(of_column)
    for part, first in enumerate(range(0, n, per_part)):
        images = np.arange(first, min(n, first + per_part))
        n_rows = len(images) * len(of_column)
        columns: dict[str, Any] = {}
        for field in module.schema:
            if pa.types.is_floating(field.type):
                columns[field.name] = rng.random(n_rows)
            elif pa.types.is_boolean(field.type):
                columns[field.name] = rng.random(n_rows) < 0.5
            elif pa.types.is_integer(field.type):
                columns[field.name] = np.tile(images % N_CLASSES, len(of_column))
            else:
                columns[field.name] = [None] * n_rows
        columns["path"] = [_path(int(k)) for k in images] * len(of_column)
        columns["status"] = ["failed" if first == 0 and k % len(images) == 0 else "ok" for k in range(n_rows)]
        columns["exif_orientation"] = [1] * n_rows
        columns["label_name"] = [f"class {k % N_CLASSES}" for k in images] * len(of_column)
        columns[name] = [value for value in of_column for _ in images]
        pq.write_table(pa.table(columns, module.schema), folder / f"part-{part:019d}-0000.parquet")
