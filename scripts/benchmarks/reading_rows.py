"""The row of how fast images are read: from decoded shards, against the JPEGs that they were made of."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from pathlib import Path

import torch

from benchmarks.run_rows import write_photos
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Goal, Result, compare
from datamodules import ImageFolderDataModule, Preprocess, pack_decoded

JPEGS, ENOUGH = "decoding the JPEGs", "5,000 images a second"
N_PHOTOS, COPIES, BATCH = 64, 16, 32


def decoded_shards(setting: Setting, rounds: int) -> list[Result]:
    """Processor time of an image, read by one process whose files lie in memory already."""
    network = setting.network
    with tempfile.TemporaryDirectory() as folder:
        roots = {JPEGS: Path(folder, "jpegs"), OURS: Path(folder, "decoded")}
        write_photos(roots[JPEGS], N_PHOTOS)
        for photo in sorted(roots[JPEGS].iterdir()):
            for copy in range(1, COPIES):
                photo.with_stem(f"{photo.stem} {copy}").hardlink_to(photo)
        sees = Preprocess(network.resize_size, network.input_size, network.interpolation)
        pack_decoded(roots[JPEGS], roots[OURS], sees)
        sources = {name: _source(root, sees, network.class_names) for name, root in roots.items()}
        for ours, theirs in zip(*(sources[name].test_dataloader() for name in (OURS, JPEGS)), strict=True):
            if not torch.equal(ours["image"], theirs["image"]):
                raise AssertionError("Decoded shards hold other pixels than the JPEGs.")
        times: dict[str, list[float]] = {JPEGS: [], OURS: [], ENOUGH: [200.0]}
        for _ in range(rounds):
            for name, source in sources.items():
                start = time.process_time()
                deque(source.test_dataloader(), maxlen=0)
                times[name].append((time.process_time() - start) / (N_PHOTOS * COPIES) * 1e6)
    size = network.input_size
    work = f"reading an image of {size} × {size} from decoded shards, processor time"
    note = "pixels equal to the bit"
    return compare("decoded", work, times, [Goal(ENOUGH, at_most=1.0), Goal(JPEGS)], note, "µs")


def _source(root: Path, sees: Preprocess, class_names: list[str]) -> ImageFolderDataModule:
    data = ImageFolderDataModule(
        str(root),
        batch_size=BATCH,
        num_workers=0,
        class_names=class_names,
        input_size=sees.input_size,
        resize_size=sees.resize_size,
        interpolation=sees.interpolation,
    )
    data.setup("test")
    return data
