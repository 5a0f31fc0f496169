"""Streams what images are to be made of: classes, or channels of layers, each with its seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import UnitBatch
from datamodules.errors import DataError, at_least
from datamodules.photos import PhotoFolder
from datamodules.preprocess import Preprocess, PreprocessOptions
from datamodules.source import first_batches
from datamodules.text import Text, Texts
from datamodules.units import Unit, parse_units


class UnitSample(TypedDict):
    """One image to be made: what a :class:`~datamodules.batch.UnitBatch` holds N of, under the same names."""

    target: int
    layer: str | None
    name: str
    seed: int
    path: str
    index: int


class ClassIndexDataModule(pl.LightningDataModule):
    """Streams classes or channels to make images of, each exactly once over all devices.

    It gives a :class:`~datamodules.batch.UnitBatch` at a time.

    Args:
        classes: What to make images of: names, WordNet ids or indices of classes; channels of layers, features.28:17,
            or all of a layer, ``features.28:*``; ``all`` (classes); or a list of these. A name goes before an index.
            What is named twice is made once.
        n_images: Images of each, from different seeds, at least 1.
        seed: Seed of the first image of each; the others count up from it.
        batch_size: Images in a batch, on each device: rows and files are written after each.
        class_names: Names of the network's classes, in the order of its outputs.
        channels: How many channels each of the network's layers has.
        layer: The layer whose channels bare numbers name. null = they name classes.
        exemplars: Folder of photos, flat or of class folders. Those that excite each class or channel most are shown
            beside what is made of it.
        n_exemplars: How many of them, 1 to 12.
        num_workers: Threads that read the photos; 0 = the main one. null = the CPUs, at most 8.
        exif_orientation: Whether photos are turned as their EXIF orientation asks.
        **preprocessing: What the network sees of an image, see :class:`~datamodules.preprocess.PreprocessOptions`.

    Attributes:
        photos: The photos of ``exemplars``; None = there are none.
        notes: None: nothing is left out.

    Example:
        >>> data = ClassIndexDataModule(["dog", 0], n_images=2, class_names=["cat", "dog"])
        >>> next(iter(data.test_dataloader()))["path"]
        ['0001_dog_seed0.png', '0000_cat_seed0.png', '0001_dog_seed1.png', '0000_cat_seed1.png']
    """

    def __init__(
        self,
        classes: Texts | Sequence[int | str] | int = "all",
        n_images: int = 1,
        seed: int = 0,
        batch_size: int = 4,
        class_names: Sequence[str] = (),
        channels: Mapping[str, int] | None = None,
        layer: str | None = None,
        exemplars: Text | None = None,
        n_exemplars: int = 6,
        num_workers: int | None = None,
        exif_orientation: bool = False,
        **preprocessing: Unpack[PreprocessOptions],
    ) -> None:
        super().__init__()
        at_least(1, n_images=n_images, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        if not 1 <= n_exemplars <= 12:
            raise DataError(f"data.n_exemplars must be 1 to 12, got {n_exemplars}.")
        preprocess = Preprocess(**preprocessing)
        self.photos = (
            None
            if exemplars is None
            else PhotoFolder(exemplars, "data.exemplars", preprocess, num_workers, exif_orientation)
        )
        self.n_exemplars = n_exemplars
        units = parse_units(classes, class_names, channels, layer)
        # First one image of every unit: what is left of an interrupted run then covers all that it can.
        self.items = [(unit, seed + k) for k in range(n_images) for unit in units]
        self.batch_size = batch_size
        self._read_done: Callable[[], set[str]] = set
        self.notes: Sequence[str] = ()
        self.done: set[str] = set()
        self.limit: float = 1.0
        # There may be fewer images left than devices.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def begin_run(self, run: Path, read_done: Callable[[], set[str]], limit: float) -> bool:
        """Obeys the limit: of their share of all images, the processes make the first so many batches together."""
        self._read_done, self.limit = read_done, limit
        return True

    def end_early(self) -> None:
        """Nothing is noted while images are made."""

    @property
    def n_listed(self) -> int:
        """How many images are to be made, also those that are done or that a limit leaves out."""
        return len(self.items)

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be made from others, beyond the options, which name them."""
        found: dict[str, Any] = {"n_images": len(self.items)}
        # Not under their option's name: that may be spelled anew for the same folder.
        return found if self.photos is None else {**found, "photos": self.photos.fingerprint()}

    def setup(self, stage: str) -> None:
        # Not later: once all ranks are set up, the first may write rows that the others must not take into account.
        self.done = self._read_done()

    def test_dataloader(self) -> DataLoader[UnitSample]:
        samples = [_sample(unit, seed, index) for index, (unit, seed) in enumerate(self.items)]
        # Lightning's own sampler repeats items where they do not divide evenly; this neither repeats nor pads.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        most = world * first_batches(len(samples[::world]), self.batch_size, self.limit)
        todo = [sample for sample in samples[:most] if sample["path"] not in self.done]
        mine = cast(Dataset[UnitSample], todo[rank::world])
        return DataLoader(mine, batch_size=self.batch_size, collate_fn=collate_units)

    def transfer_batch_to_device(self, batch: UnitBatch, device: torch.device, dataloader_idx: int) -> UnitBatch:
        """Leaves a batch on the host, where it is read."""
        return batch


def _sample(unit: Unit, seed: int, index: int) -> UnitSample:
    path = f"{unit.stem}_seed{seed}.png"
    return {"target": unit.target, "layer": unit.layer, "name": unit.name, "seed": seed, "path": path, "index": index}


def collate_units(samples: Sequence[UnitSample]) -> UnitBatch:
    """Samples -> batch of N."""
    return {
        "target": torch.tensor([sample["target"] for sample in samples], dtype=torch.long),
        "layer": [sample["layer"] for sample in samples],
        "name": [sample["name"] for sample in samples],
        "seed": torch.tensor([sample["seed"] for sample in samples], dtype=torch.long),
        "path": [sample["path"] for sample in samples],
        "index": torch.tensor([sample["index"] for sample in samples], dtype=torch.long),
    }
