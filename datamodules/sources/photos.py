"""A folder of photos that are looked at beside what a run is about."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datamodules.batch import Batch
from datamodules.errors import DataError
from datamodules.reading.decoding import Preprocess
from datamodules.reading.samples import SampleReader
from datamodules.reading.workers import default_workers
from datamodules.sources.folder import FolderListing, ImageDataset, list_folder
from datamodules.sources.listing import Share


class PhotoFolder:
    """The photos of a folder, flat or of class folders, whatever these are called; see :class:`Photos`.

    Args:
        root: The folder, which is listed when it is first asked for.
        option: What messages call it.
        preprocess: What a network sees of an image.
        num_workers: Processes that read images; 0 = this one, None = as many as there are CPUs, at most 8.
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
        self.root = Path(root).expanduser()
        self.option = option
        self.reader = SampleReader(preprocess, exif_orientation=exif_orientation)
        self.num_workers = default_workers() if num_workers is None else num_workers

    @cached_property
    def listing(self) -> FolderListing:
        try:
            listing = list_folder(self.root)
        except DataError as error:
            raise DataError(f"{self.option}: {error}") from error
        listing.tell(self.root)
        return listing

    def __len__(self) -> int:
        return len(self.listing)

    def fingerprint(self) -> dict[str, Any]:
        return self.listing.fingerprint()

    def batches(self) -> Iterable[Batch]:
        is_pinned = torch.cuda.is_available()
        options = {"batch_size": self.batch_size, "num_workers": self.num_workers, "pin_memory": is_pinned}
        return self.listing.loader(self.reader, Share(), options)  # type: ignore[arg-type]

    def pixels(self, index: int) -> np.ndarray:
        """What a network sees of a photo that could be read, uint8 ``(H, W, 3)``.

        Raises:
            DataError: If it cannot be read any more.
        """
        sample = ImageDataset(self.listing, self.reader)[index]
        if "failed" in sample:
            path, error = sample["failed"]
            raise DataError(f"{self.option}: {path} cannot be read any more: {error}.")
        return sample["image"].permute(1, 2, 0).numpy()
