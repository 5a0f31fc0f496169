"""The row of how fast images are read: by our threads against a DataLoader's processes; decoded once against JPEGs."""

from __future__ import annotations

import tempfile
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
from benchmarks.timing import OURS, Contender, Goal, Result, Row, measure
from datamodules import ImageFolderDataModule, Preprocess, pack_decoded

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
    of a decoded image, read by one thread.
    """
    sees = Preprocess(**setting.network.preprocessing)
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more than there are cores: so do we
        folder, decoded = Path(root, "photos"), Path(root, "decoded")
        write_photos(folder, N_PHOTOS)
        for photo in sorted(folder.iterdir()):
            for copy in range(1, COPIES):
                photo.with_stem(f"{photo.stem} {copy}").hardlink_to(photo)
        photos, rows = TorchvisionFolder(folder, sees), []
        for n in WORKERS:
            work, ours = f"reading a photo of 500 × 375 with {n} workers", _loader(folder, setting, n)
            theirs = partial(iter, DataLoader(photos, BATCH, num_workers=n))
            rows.append(_row(work, ours, f"a DataLoader with {n} workers", theirs))
        pack_decoded(folder, decoded, sees)
        work = f"reading a decoded image of {sees.input_size} × {sees.input_size}"
        rows.append(_row(work, _loader(decoded, setting, 0), "decoding the JPEGs", _loader(folder, setting, 0)))
        return [line for row in rows for line in measure(row, rounds)]


def _row(work: str, ours: Callable[[], Iterable[Any]], peer: str, theirs: Callable[[], Iterable[Any]]) -> Row:
    def check() -> str:
        for batches in zip(ours(), theirs(), strict=True):
            one, other = (batch["image"] if isinstance(batch, dict) else batch for batch in batches)
            if not torch.equal(one, other):
                raise AssertionError("The contenders read other pixels.")
        return "pixels equal to the bit"

    def run(new: Callable[[], Iterable[Any]]) -> None:
        deque(new(), maxlen=0)

    contenders = [Contender(Goal(OURS), partial(run, ours)), Contender(Goal(peer, at_most=1.0), partial(run, theirs))]
    return Row("reading", work, contenders, check, N_PHOTOS * COPIES)


def _loader(root: Path, setting: Setting, n_workers: int) -> Callable[[], Iterable[Any]]:
    network = setting.network
    options: dict[str, Any] = {"class_names": network.class_names, **network.preprocessing}
    data = ImageFolderDataModule(str(root), batch_size=BATCH, num_workers=n_workers, **options)
    data.setup("test")
    return data.test_dataloader
