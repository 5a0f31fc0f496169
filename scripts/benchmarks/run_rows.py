"""Rows of whole runs: input hidden behind compute, a rate and a memory that last, peak memory, accuracy of bf16."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from benchmarks.map_rows import BARE, CAPTUM, our_maps
from benchmarks.setting import Setting, prepared
from benchmarks.timing import OURS, Contender, Goal, Result, Row, compare
from datamodules import ImageFolderDataModule, write_shapes
from datamodules.batch import Batch, pixels_of
from lightning_modules import AttributionModule, GradCAM, GuidedBackprop, GuidedGradCAM, RunWriter
from lightning_modules.gradients.memory import give_back_freed_memory
from lightning_modules.metrics import rank_correlation

COMPUTE_ALONE = "compute alone"
MEMORY_BATCH = 16
ROOT = Path(__file__).resolve().parents[2]


def end_to_end(setting: Setting, peers: bool = True) -> Row:
    """Lightning's test loop over a folder of JPEGs of a photo's size, against the steps alone on batches in memory."""
    size, folder = setting.batch_size, Path(tempfile.mkdtemp())

    def contenders(n: int) -> list[Contender]:
        root = folder / str(n)
        write_photos(root, n)
        module = AttributionModule(
            setting.weights, methods=[GradCAM(), GuidedBackprop(), GuidedGradCAM()], metrics=[], n_figures=0
        )
        module.network = setting.network
        data = _data(setting, root, size)
        data.setup("test")
        batches = list(data.test_dataloader())
        runs = iter(range(1_000))

        # A run of the script starts its workers before it computes anything. Here, memory kept from the rows before
        # would be shared with them at the fork, and copied page by page when written: 3 s that no user meets.
        def ours() -> None:
            give_back_freed_memory()
            _trainer(setting, folder / f"rows {n} {next(runs)}").test(module, _data(setting, root, size), verbose=False)

        def alone() -> None:
            give_back_freed_memory()
            with torch.inference_mode():
                for i, batch in enumerate(batches):
                    module.test_step(cast(Batch, {**batch, "image": batch["image"].to(setting.device)}), i)

        return [Contender(OURS, ours), Contender(COMPUTE_ALONE, alone)]

    work = f"three maps of {4 * size} JPEGs of 500 × 375 end to end, files to rows, fp32, batch {size}"
    return Row("end_to_end", work, contenders, 4 * size, [Goal(COMPUTE_ALONE, at_most=1.05)])


def sustained() -> list[Result]:
    """The embedded model over 2,400 images, once, in a process of its own: rate and memory as the run goes on."""
    found = _subprocess("sustained")
    values = {name: {OURS: [late], "early": [early]} for name, (early, late) in found.items()}
    work = "embedded model, three maps over 2,400 images: after 2,000 images"
    # A ratio of rates is the inverse of a ratio of times.
    rate = [Goal("early", at_most=1 / 0.98)]
    results = compare("sustained", f"{work}, seconds for 400", values["rate"], rate)
    results += compare(
        "sustained", f"{work}, resident memory", values["memory"], [Goal("early", at_most=1.05)], "", "GB"
    )
    for result in results:
        result.against = "after 200 images"
    return results


def peak_memory(peers: bool = True) -> list[Result]:
    """Highest resident memory of a process that computes the three maps, less what it had before."""
    others = {BARE: "bare"} | ({prepared(CAPTUM): "captum", CAPTUM: "captum_as_found"} if peers else {})
    values = {name: [_subprocess("memory", who)["peak"]] for name, who in ({OURS: "ours"} | others).items()}
    work = f"three maps, fp32, batch {MEMORY_BATCH}: peak memory beyond the network and the images"
    goals = [Goal(BARE, at_most=1.15)]
    if peers:
        goals += [Goal(prepared(CAPTUM), at_most=1.0), Goal(CAPTUM)]
    return compare("peak_memory", work, values, goals, "", "GB")


def bf16_accuracy(setting: Setting) -> list[Result]:
    """How near bf16's maps and predictions are to fp32's: of the embedded model, and of ours where that is quick."""
    embedded = Setting("shapes", 32, setting.device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shapes"
        write_shapes(root, n_train=0, n_val=32, n_pairs=0, seed=0)
        data = _data(embedded, root / "val", 32)
        data.setup("test")
        images = pixels_of(next(iter(data.test_dataloader()))["image"].to(setting.device))
    results = _accuracy(embedded, images, "embedded model, 32 generated images")
    if not setting.has_fast_bf16():
        return results
    n = setting.batch_size
    return results + _accuracy(setting, setting.images(n), f"{setting.weights} weights, {n} images")


def _accuracy(setting: Setting, images: Tensor, what: str) -> list[Result]:
    exact = setting.bare_forward(images)
    target = exact.argmax(1)
    maps = our_maps(setting.network, images, target)
    with setting.bf16():
        rough = our_maps(setting.network, images, target)
        agree = (setting.bare_forward(images).argmax(1) == target).float().mean()
    lines = [("agreement of the prediction", float(agree))]
    for name, ours, theirs in zip(("Grad-CAM", "Guided Backprop", "Guided Grad-CAM"), rough, maps):
        # Of magnitudes, as all our rank correlations; a map of zeros ranks nothing.
        lines.append((f"rank correlation, {name}", float(rank_correlation(ours, theirs).nanmean())))
    return [
        Result("bf16_accuracy", f"bf16: {line}, {what}", "fp32", [value], [1.0], ratio=value, unit="")
        for line, value in lines
    ]


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


def _data(setting: Setting, root: Path, batch_size: int) -> ImageFolderDataModule:
    network = setting.network
    return ImageFolderDataModule(
        str(root),
        batch_size=batch_size,
        input_size=network.input_size,
        resize_size=network.resize_size,
        interpolation=network.interpolation,
    )


def _trainer(setting: Setting, rows: Path, callbacks: Sequence[pl.Callback] = ()) -> pl.Trainer:
    warnings.filterwarnings("ignore", ".*does not have many workers")
    return pl.Trainer(
        accelerator="gpu" if setting.device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        use_distributed_sampler=False,
        callbacks=[RunWriter(rows), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


def _subprocess(*job: str) -> dict[str, Any]:
    """What ``probe.py`` measures in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    command = [sys.executable, str(Path(__file__).with_name("probe.py")), *job]
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])
