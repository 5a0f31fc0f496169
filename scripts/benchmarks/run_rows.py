"""Rows of whole runs: reading, computing and writing, from files to rows; and how what is done once a run grows."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from PIL import Image

from benchmarks.map_rows import THREE_MAPS
from benchmarks.setting import Setting
from benchmarks.timing import LEEWAY, OURS, Contender, Goal, Result, Row, compare
from datamodules import ImageFolderDataModule
from datamodules.batch import Batch, pixels_of
from lightning_modules import AttributionModule, EvaluationModule, GradCAM, RobustnessModule, RunWriter

BUDGETS = ("1/255", "2/255", "4/255", "8/255")
QUIET: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
SIZES = (12_000, 120_000)
N_CLASSES = 1_000
PROPORTIONAL = "ten times that of a tenth"


def attribution_end_to_end(setting: Setting) -> Row:
    """Against the steps alone, on batches in memory."""
    module = AttributionModule(setting.weights, THREE_MAPS, metrics=[], n_figures=0)

    def steps(batches: list[Batch]) -> None:
        with torch.inference_mode():
            for i, batch in enumerate(batches):
                module.test_step(cast(Batch, {**batch, "image": batch["image"].to(setting.device)}), i)

    return _end_to_end(setting, "end_to_end", "three maps", module, "compute alone", steps)


def robustness_end_to_end(setting: Setting) -> Row:
    """Against the passes that it needs at least: one to the pixels, and to Grad-CAM's layer one of another picture, one
    of the attacked images of each budget, and one of random noise as large.
    """
    module = RobustnessModule(setting.weights, BUDGETS, target="predicted", methods=[GradCAM()], n_figures=0)

    def passes(batches: list[Batch]) -> None:
        for batch in batches:
            images = pixels_of(batch["image"].to(setting.device))
            target = setting.target(len(images))
            setting.bare_gradient(images, target)
            for _ in range(1 + 2 * len(BUDGETS)):
                setting.bare_layer_gradient(images, target)

    work = f"FGSM under {len(BUDGETS)} budgets and Grad-CAM"
    return _end_to_end(setting, "robustness_end_to_end", work, module, "bare passes", passes)


def _end_to_end(
    setting: Setting, name: str, what: str, module: EvaluationModule, who: str, alone: Callable[[list[Batch]], None]
) -> Row:
    """Lightning's test loop over a folder of JPEGs of a photo's size, against what it is to compute at least."""
    size, folder, module.network = setting.batch_size, Path(tempfile.mkdtemp()), setting.network

    write_photos(folder / "photos", 4 * size)
    preprocessing = setting.network.preprocessing
    new_data = partial(ImageFolderDataModule, str(folder / "photos"), batch_size=size, **preprocessing)
    data = new_data()
    data.setup("test")
    batches, runs = list(data.test_dataloader()), iter(range(1_000))

    def run() -> None:
        writer = RunWriter(folder / f"rows {next(runs)}")
        trainer = pl.Trainer(devices=1, callbacks=[writer], enable_checkpointing=False, **QUIET)
        trainer.test(module, new_data(), verbose=False)

    work = f"{what} of {4 * size} JPEGs of 500 × 375 end to end, files to rows, fp32, batch {size}"
    bare = Contender(Goal(who, at_most=LEEWAY), lambda: alone(batches))
    return Row(name, work, [Contender(Goal(OURS), run), bare])


def growth() -> list[Result]:
    """Processor time of what is done once a run, of ten times as many images; at most ten times as much."""
    module = AttributionModule("shapes")
    seconds: dict[str, list[float]] = {}
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            for k in range(n):
                file = Path(folder, f"c{k % N_CLASSES:04d}/{k:08d}.JPEG")
                file.parent.mkdir(exist_ok=True)
                file.touch()  # listed, and not read
            data = ImageFolderDataModule(folder, num_workers=0)
            jobs: dict[str, Callable[[], Any]] = {
                "listing the files": partial(data.setup, "test"),
                "summary of four methods' rows": partial(module.summarize, _rows(module, n)),
            }
            for job, run in jobs.items():
                start = time.process_time()
                run()
                seconds.setdefault(job, []).append(time.process_time() - start)
    results = []
    for job, (before, now) in seconds.items():
        values, goals = {OURS: [now], PROPORTIONAL: [10 * before]}, [Goal(PROPORTIONAL, at_most=1.2)]
        results += compare("growth", f"{job}, {SIZES[1]:,} images, processor time", values, goals)
    return results


def _rows(module: AttributionModule, n: int) -> pa.Table:
    """Rows of ``n`` images by each method, with random numbers."""
    n_rows, rng = n * len(module.methods), np.random.default_rng(0)
    paths = [f"{k:08d}.JPEG" for k in range(n)] * len(module.methods)
    text = {"path": paths, "method": np.repeat(list(module.methods), n), "status": ["ok"] * n_rows}
    columns = []
    for field in module.schema:
        is_number = not (pa.types.is_string(field.type) or pa.types.is_list(field.type))
        values = rng.integers(0, N_CLASSES, n_rows) if is_number else text.get(field.name, [None] * n_rows)
        columns.append(pa.array(values).cast(field.type))
    return pa.table(columns, module.schema)


def write_photos(root: Path, n: int) -> None:
    """Writes ``n`` JPEGs of 500 × 375 pixels with detail as photos have it, about 100 kB each."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for i in range(n):
        generator = torch.Generator().manual_seed(i)
        pixels = torch.zeros(1, 3, 375, 500)
        for cells in (5, 15, 45, 135):
            noise = torch.rand(1, 3, cells, cells, generator=generator)
            pixels += torch.nn.functional.interpolate(noise, (375, 500), mode="bicubic") / 4
        content = (pixels[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(content).save(root / f"{i:04d}.JPEG", quality=90)
