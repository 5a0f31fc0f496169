"""How that which is done once a run grows with its images, to a million: listing, resuming, summaries, what failed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import OURS, Goal, Result, compare
from datamodules import ImageFolderDataModule
from lightning_modules import AttributionModule, GradCAM, GuidedBackprop, GuidedGradCAM, RobustnessModule, SmoothGrad
from lightning_modules.evaluation import EvaluationModule
from lightning_modules.pages.runs import failures_of
from lightning_modules.results.rows.parts import done_paths
from lightning_modules.results.rows.stored import StoredRows

SIZES = (12_000, 120_000, 1_200_000)
N_CLASSES, ROWS_PER_PART = 1000, 8192
PROPORTIONAL = "ten times that of a tenth"


def million() -> list[Result]:
    """Processor time at each size, once, against ten times that at the size before."""
    methods = [GradCAM(), GuidedBackprop(), GuidedGradCAM(), SmoothGrad()]
    attribution, robustness = AttributionModule("shapes", methods), RobustnessModule("shapes")
    found: dict[str, list[float]] = {}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            tree, maps, attacks = (Path(folder) / name for name in ("tree", "maps", "attacks"))
            _write_tree(tree, n)
            _write_rows(maps / "results", attribution, n, {"method": list(attribution.methods)})
            _write_rows(attacks / "results", robustness, n, {"eps": [0.0, *robustness.eps]})
            jobs: dict[str, Callable[[], Any]] = {
                "listing the files": partial(_list, tree, set),
                "reading what is done, of four methods": partial(done_paths, maps / "results"),
                "listing what is left to do": partial(_list, tree, partial(done_paths, maps / "results")),
                "summary of attribution, four methods": partial(_summarize, attribution, maps),
                "summary of robustness, four budgets": partial(_summarize, robustness, attacks),
                "what failed, for the page": partial(failures_of, maps, {"n_failed": 1}),
            }
            for name, job in jobs.items():
                start = time.process_time()
                job()
                found.setdefault(name, []).append(time.process_time() - start)
    results = []
    for name, seconds in found.items():
        for n, before, now in zip(SIZES[1:], seconds, seconds[1:]):
            values = {OURS: [now], PROPORTIONAL: [10 * before]}
            results += compare("million", f"{name}: {n:,} images", values, [Goal(PROPORTIONAL, at_most=1.2)])
    return results


def _list(tree: Path, read_done: Callable[[], set[str]]) -> None:
    """As a run does that begins, or goes on."""
    data = ImageFolderDataModule(str(tree), batch_size=32, num_workers=0)
    data.read_done, data.listing_file = read_done, tree.parent / "listing.arrow"
    data.prepare_data()
    data.setup("test")


def _summarize(module: EvaluationModule, run: Path) -> None:
    module.summarize(StoredRows(run / "results"))


def _path(k: int) -> str:
    return f"c{k % N_CLASSES:04d}/{k:08d}.JPEG"


def _write_tree(tree: Path, n: int) -> None:
    """A folder of empty files: they are listed, and not read."""
    for label in range(N_CLASSES):
        (tree / f"c{label:04d}").mkdir(parents=True)
    for k in range(n):
        (tree / _path(k)).touch()


def _write_rows(folder: Path, module: EvaluationModule, n: int, several: dict[str, list[Any]]) -> None:
    """Rows of ``n`` images with random numbers, for each of the several values of a column; one image failed."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
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
