"""A folder of photos that are looked at beside what a run is about."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any

import numpy as np

from datamodules.batch import Batch
from datamodules.errors import DataError
from datamodules.folder import FolderSource, list_folder
from datamodules.loader import ThreadedLoader, default_workers
from datamodules.preprocess import Preprocess
from datamodules.reader import SampleReader, collate


class PhotoFolder:
    """The photos of a folder, flat or of class folders, whatever these are called; see :class:`Photos`.

    Args:
        root: The folder, which is listed when it is first asked for.
        option: What messages call it.
        preprocess: What a network sees of an image.
        num_workers: Threads that read images; 0 = the main one, None = as many as there are CPUs, at most 8.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
    """

    batch_size = 32
    """Always the same, so that numbers are too."""

    def __init__(
        self,
        root: str,
        option: str,
        preprocess: Preprocess,
        num_workers: int | None = None,
        exif_orientation: bool = False,
    ) -> None:
        self.root = root
        self.option = option
        self.reader = SampleReader(preprocess, exif_orientation=exif_orientation)
        self.num_workers = default_workers() if num_workers is None else num_workers

    @cached_property
    def source(self) -> FolderSource:
        try:
            source = list_folder(self.root)
        except DataError as error:
            raise DataError(f"{self.option}: {error}") from error
        source.log_notes(self.root)
        return source

    def __len__(self) -> int:
        return len(self.source)

    def fingerprint(self) -> dict[str, Any]:
        return self.source.fingerprint()

    def batches(self) -> Iterable[Batch]:
        read = partial(self.source.read, reader=self.reader)
        return ThreadedLoader(read, range(len(self)), self.batch_size, self.num_workers, collate)

    def pixels(self, index: int) -> np.ndarray:
        """What a network sees of a photo that could be read, uint8 ``(H, W, 3)``.

        Raises:
            DataError: If it cannot be read any more.
        """
        sample = self.source.read(index, self.reader)
        if "failed" in sample:
            path, error = sample["failed"]
            raise DataError(f"{self.option}: {path} cannot be read any more: {error}.")
        return sample["image"].permute(1, 2, 0).numpy()
