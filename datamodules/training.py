"""What training reads: class folders of original files, of which it sees random crops."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from datamodules.batch import Batch
from datamodules.errors import DataError
from datamodules.folder import FolderSource
from datamodules.preprocess import Preprocess
from datamodules.reader import SampleReader, collate
from datamodules.source import ListingOptions, Source
from datamodules.walk import class_folders, holds_images


@dataclass(frozen=True)
class RandomCrops(Preprocess):
    """What a network that is trained sees of an image: a part of it, at random, and as in a mirror half of the time.

    Args:
        min_crop: The smallest share of the image's area.
    """

    min_crop: float = 0.5

    def levels(self, image: Image.Image) -> Tensor:
        crop = v2.RandomResizedCrop(
            self.input_size, scale=(self.min_crop, 1.0), ratio=(0.8, 1.25), interpolation=self.mode
        )
        return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.PILToTensor()])(image)


def read_batch(numbers: Sequence[int], source: Source, reader: SampleReader) -> Batch:
    """A batch, read by the process that a DataLoader asks: random crops need random numbers of its own."""
    return collate([source.read(number, reader) for number in numbers])


def train_class_names(root: Path) -> list[str]:
    """The names of the class folders to train on, in order.

    Raises:
        DataError: If there are none.
    """
    folder = root / "train" if (root / "train").is_dir() else root
    found = [name for name in class_folders(folder) if holds_images(folder / name)] if folder.is_dir() else []
    if not found:
        raise DataError(
            f"{root} holds no class folders to train on: it should hold {root}/CLASS/*.jpg, or such folders in train "
            "and in val."
        )
    return found


def list_for_training(root: Path, options: ListingOptions) -> tuple[Source, Source]:
    """The images to train on and those to validate on: of two folders or, by the hash of their paths, of one.

    Raises:
        DataError: If there are too few of either.
    """
    if options.labels is not None:
        raise DataError("data.labels is for evaluation; training learns the classes of class folders.")
    options = replace(options, class_names=options.class_names or train_class_names(root))
    if (root / "train").is_dir():
        if not (root / "val").is_dir():
            raise DataError(f"{root} has a folder train, but none named val to validate on.")
        return _listed(root / "train", options), _listed(root / "val", options)
    source = _listed(root, options)
    hashes = (hashlib.sha256(path.as_py()).digest()[0] for path in source.columns["path"])
    held_out = np.fromiter((first < 256 // 5 for first in hashes), bool, len(source))
    train, val = source.take(np.flatnonzero(~held_out)), source.take(np.flatnonzero(held_out))
    if not len(train) or not len(val):
        raise DataError(f"{root} holds too few images ({len(source)}) to train and validate on.")
    return train, val


def _listed(root: Path, options: ListingOptions) -> Source:
    source = FolderSource.open(root, options)
    source.log_notes(root)
    return source
