"""Measures memory, in a process of its own: ``probe.py sustained``, or ``probe.py memory ours``.

In place of ``ours``: ``bare``, ``captum`` (given our network and memory), ``captum_as_found``.
"""

from __future__ import annotations

import json
import logging
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch

from benchmarks.map_peers import captum_maps
from benchmarks.map_rows import our_maps
from benchmarks.run_rows import MEMORY_BATCH, _data, _trainer
from benchmarks.setting import Setting
from datamodules import write_shapes
from lightning_modules import AttributionModule, GradCAM, GuidedBackprop, GuidedGradCAM, keep_freed_memory

BATCH, N_IMAGES, WINDOW = 16, 2400, 400
STARTS = (208, 2000)
"""After how many images the two windows begin; whole batches."""


class Probe(pl.Callback):
    """Notes, after each batch, the time and the resident memory."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.gigabytes: list[float] = []

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter())
        self.gigabytes.append(psutil.Process().memory_info().rss / 1e9)


def sustained() -> dict[str, list[float]]:
    """Seconds for ``WINDOW`` images, and the resident memory at their start, for both windows."""
    keep_freed_memory()
    setting, probe = Setting("shapes", BATCH, torch.device("cpu")), Probe()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_shapes(root / "shapes", n_train=0, n_val=N_IMAGES // 12, n_pairs=0, seed=0)
        for copy in range(12):
            shutil.copytree(root / "shapes/val", root / f"images/{copy}", dirs_exist_ok=True)
        for image in (root / "images").glob("*/*/*.JPEG"):
            image.rename(image.parents[2] / f"{image.parents[1].name} {image.parent.name} {image.name}")
        for copy in range(12):
            shutil.rmtree(root / f"images/{copy}")
        module = AttributionModule(
            "shapes", methods=[GradCAM(), GuidedBackprop(), GuidedGradCAM()], metrics=[], n_figures=0
        )
        _trainer(setting, root / "rows", [probe]).test(module, _data(setting, root / "images", BATCH), verbose=False)
    first = [start // BATCH - 1 for start in STARTS]
    last = [k + WINDOW // BATCH for k in first]
    return {
        "rate": [probe.seconds[min(b, len(probe.seconds) - 1)] - probe.seconds[a] for a, b in zip(first, last)],
        "memory": [probe.gigabytes[k] for k in first],
    }


def memory(who: str) -> dict[str, float]:
    """Peak resident memory of the three maps of :data:`MEMORY_BATCH` images, in GB, beyond what there was before."""
    setting = Setting("random", MEMORY_BATCH, torch.device("cpu"))
    images, target = setting.images(MEMORY_BATCH), setting.target(MEMORY_BATCH)
    keep_freed_memory(who != "captum_as_found")
    network = {"captum": setting.prepared, "captum_as_found": setting.as_found}.get(who, setting.network)
    run: Callable[[], Any] = {
        "ours": lambda: our_maps(network, images, target),
        "bare": lambda: setting.bare_gradient(images, target),
    }.get(who, lambda: captum_maps(network, images, target))
    before = psutil.Process().memory_info().rss
    run()
    return {"peak": (peak_memory() - before) / 1e9}


def peak_memory() -> int:
    """The most that this process has had resident, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's: on Linux that begins with what the process had that started this one.
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    job, *options = sys.argv[1:]
    print(json.dumps(sustained() if job == "sustained" else memory(*options)))
