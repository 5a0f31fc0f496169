"""Rows of how fast images are read: by our threads against a DataLoader's processes, and decoded once against JPEGs."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

JPEGS, ENOUGH = "decoding the JPEGs", "10,000 images a second"
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
    """Time of a photo, by so many of our threads and by as many processes of a DataLoader, which are started anew."""
    sees = _preprocess(setting)
    results = []
    with _photos() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than there are cores: so do we
        photos = TorchvisionFolder(folder, sees)
        for n in WORKERS:
            data = _source(folder, sees, setting.network.class_names, n)
            theirs = DataLoader(photos, BATCH, num_workers=n)
            _refuse_other_pixels((batch["image"] for batch in data.test_dataloader()), theirs)
            peer = f"a DataLoader with {n} workers"
            loaders: dict[str, Callable[[], Iterable[Any]]] = {OURS: data.test_dataloader, peer: partial(iter, theirs)}
            times = _in_turns(loaders, rounds, time.perf_counter)
            work = f"reading a photo of 500 × 375 with {n} workers"
            results += compare("reading", work, times, [Goal(peer, at_most=1.0)], "pixels equal to the bit", "µs")
    return results


def decoded_images(setting: Setting, rounds: int) -> list[Result]:
    """Processor time of an image, read by one thread whose files lie in memory already."""
    sees, size = _preprocess(setting), setting.network.input_size
    with _photos() as folder, tempfile.TemporaryDirectory() as out:
        pack_decoded(folder, Path(out, "decoded"), sees)
        roots = {JPEGS: folder, OURS: Path(out, "decoded")}
        sources = {name: _source(root, sees, setting.network.class_names, 0) for name, root in roots.items()}
        ours, theirs = ((batch["image"] for batch in sources[name].test_dataloader()) for name in (OURS, JPEGS))
        _refuse_other_pixels(ours, theirs)
        loaders = {name: source.test_dataloader for name, source in sources.items()}
        times = {**_in_turns(loaders, rounds, time.process_time), ENOUGH: [100.0]}
    work = f"reading a decoded image of {size} × {size}, processor time"
    return compare("decoded", work, times, [Goal(ENOUGH, at_most=1.0), Goal(JPEGS)], "pixels equal to the bit", "µs")


def _preprocess(setting: Setting) -> Preprocess:
    return Preprocess(**setting.network.preprocessing)


@contextmanager
def _photos() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root, "photos")
        write_photos(folder, N_PHOTOS)
        for photo in sorted(folder.iterdir()):
            for copy in range(1, COPIES):
                photo.with_stem(f"{photo.stem} {copy}").hardlink_to(photo)
        yield folder


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


def _source(root: Path, sees: Preprocess, class_names: Sequence[str], n_workers: int) -> ImageFolderDataModule:
    data = ImageFolderDataModule(
        str(root),
        batch_size=BATCH,
        num_workers=n_workers,
        class_names=class_names,
        **vars(sees),
    )
    data.setup("test")
    return data
