"""The row of how fast images are read: by our threads against a DataLoader's processes; decoded once against JPEGs."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.run_rows import write_photos
from benchmarks.setting import Setting
from benchmarks.timing import OURS, Goal, Result, compare
from datamodules import ImageFolderDataModule, Preprocess, pack_decoded

JPEGS, ENOUGH, EQUAL = "decoding the JPEGs", "10,000 images a second", "pixels equal to the bit"
N_PHOTOS, COPIES, BATCH = 64, 16, 32
WORKERS = (2, 4)


class TorchvisionFolder(Dataset[Tensor]):
    """The photos of a folder by torchvision's own transforms, as its users read them."""

    def __init__(self, folder: Path, sees: Preprocess) -> None:
        self.files = sorted(folder.iterdir())
        resize = v2.Resize([sees.short_side], interpolation=sees.mode, antialias=True)
        self.transform = v2.Compose([resize, v2.CenterCrop(sees.input_size), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


def reading(setting: Setting, rounds: int) -> list[Result]:
    """Time of a photo, by so many of our threads and by as many processes of a DataLoader, which are started anew; and
    processor time of a decoded image, read by one thread whose files lie in memory already.
    """
    sees = Preprocess(**setting.network.preprocessing)
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than there are cores: so do we
        folder, results = Path(root, "photos"), []
        write_photos(folder, N_PHOTOS)
        for photo in sorted(folder.iterdir()):
            for copy in range(1, COPIES):
                photo.with_stem(f"{photo.stem} {copy}").hardlink_to(photo)
        photos = TorchvisionFolder(folder, sees)
        for n in WORKERS:
            ours, theirs = _loader(folder, setting, n), DataLoader(photos, BATCH, num_workers=n)
            _refuse_other_pixels((batch["image"] for batch in ours()), theirs)
            peer = f"a DataLoader with {n} workers"
            times = _in_turns({OURS: ours, peer: partial(iter, theirs)}, rounds, time.perf_counter)
            work = f"reading a photo of 500 × 375 with {n} workers"
            results += compare("reading", work, times, [Goal(peer, at_most=1.0)], EQUAL, "µs")
        pack_decoded(folder, Path(root, "decoded"), sees)
        loaders = {OURS: _loader(Path(root, "decoded"), setting, 0), JPEGS: _loader(folder, setting, 0)}
        _refuse_other_pixels(*((batch["image"] for batch in loader()) for loader in loaders.values()))
        times = {**_in_turns(loaders, rounds, time.process_time), ENOUGH: [100.0]}
    work = f"reading a decoded image of {sees.input_size} × {sees.input_size}, processor time"
    return results + compare("reading", work, times, [Goal(ENOUGH, at_most=1.0), Goal(JPEGS)], EQUAL, "µs")


def _in_turns(
    loaders: dict[str, Callable[[], Iterable[Any]]], rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Microseconds of each image, in each round."""
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, loader in loaders.items():
            start = clock()
            deque(loader(), maxlen=0)
            times[name].append((clock() - start) / (N_PHOTOS * COPIES) * 1e6)
    return times


def _refuse_other_pixels(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        if not torch.equal(one, other):
            raise AssertionError("The contenders read other pixels.")


def _loader(root: Path, setting: Setting, n_workers: int) -> Callable[[], Iterable[Any]]:
    network = setting.network
    options: dict[str, Any] = {"class_names": network.class_names, **network.preprocessing}
    data = ImageFolderDataModule(str(root), batch_size=BATCH, num_workers=n_workers, **options)
    data.setup("test")
    return data.test_dataloader
