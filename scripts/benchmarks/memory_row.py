"""The row of peak memory: of three maps, each contender in a process of its own, on Linux."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.map_peers import captum_maps
from benchmarks.map_rows import BARE, CAPTUM, THREE_MAPS, maps_by
from benchmarks.setting import Setting, prepared
from benchmarks.timing import OURS, Goal, Result, compare
from lightning_modules import keep_freed_memory

BATCH = 16
STATUS = Path("/proc/self/status")


def peak_memory(setting: Setting) -> list[Result]:
    """Highest resident memory of a process that computes the three maps, less what it had before."""
    if not STATUS.exists() or setting.device.type != "cpu":
        return []
    goals = [Goal(BARE, at_most=1.15), *([Goal(prepared(CAPTUM), at_most=1.0), Goal(CAPTUM)] * setting.peers)]
    values = {}
    for who in (OURS, *(goal.against for goal in goals)):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            values[who] = [pool.submit(grown_by, setting.weights, who).result()]
    work = f"three maps, fp32, batch {BATCH}: peak memory beyond the network and the images"
    return compare("peak_memory", work, values, goals, unit="GB")


def grown_by(weights: str, who: str) -> float:
    """By how many GB this process grows at most while a contender computes the maps."""
    setting = Setting(weights, BATCH, torch.device("cpu"))
    keep_freed_memory(who != CAPTUM)
    network = {prepared(CAPTUM): setting.prepared, CAPTUM: setting.as_found}.get(who, setting.network)
    ours = partial(maps_by, THREE_MAPS, network)
    run: Any = {OURS: ours, BARE: setting.bare_gradient}.get(who, partial(captum_maps, network))
    images, target = setting.images(BATCH), setting.target(BATCH)
    before = _gigabytes("VmRSS")
    run(images, target)
    return _gigabytes("VmHWM") - before


def _gigabytes(kind: str) -> float:
    """Resident memory now (VmRSS) or at its peak (VmHWM): getrusage's begins with that of the parent process."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024 / 1e9
