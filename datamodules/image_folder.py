"""Streams ImageNet-style folders of images, ``root/<class>/*.JPEG``, one flat folder without labels, or tar shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datamodules.batch import Batch
from datamodules.classes import checked_names
from datamodules.errors import DataError
from datamodules.reading.decoding import Preprocess
from datamodules.reading.samples import Failure, Sample, SampleReader, collate
from datamodules.reading.workers import default_workers
from datamodules.sources.files import class_folders, hash_files
from datamodules.sources.folder import FolderListing, ImageDataset, list_folder
from datamodules.sources.kinds import kind_at, load_listing
from datamodules.sources.listing import Listing, LoaderOptions, Share


class ImageFolderDataModule(pl.LightningDataModule):
    """Streams the images of ``root/<class>/*.JPEG``, of a flat folder, or of tar shards, each once over all devices.

    A class folder is called as a class of the network is, or by the WordNet id (``n02123045``) of an ImageNet class,
    also if only some of the 1,000 are there; see :class:`~datamodules.classes.ClassTable`.

    Args:
        root: Folder of class folders, or of images; or tar shards in WebDataset's layout: a folder that holds them, or
            a pattern such as val-{0000..0049}.tar. Training looks for ``root/train`` and ``root/val``; where they do
            not exist, a fifth of the images, chosen by the hash of their paths, is held out for validation.
        boxes: Folder of box annotations in ILSVRC's XML layout, ``boxes/<class>/<name>.xml`` or ``boxes/<name>.xml``.
        batch_size: Images in a batch, on each device.
        num_workers: Processes that decode images, for each device; 0 = the main one decodes. null = the CPUs divided
            by the devices, at most 8.
        class_names: Names of the network's classes, in the order of its outputs. null numbers the class folders.
        input_size: Height and width in pixels of what the model sees.
        resize_size: Length in pixels of the shorter side before the centre crop. null = that of the crop, so that
            images of ``input_size`` are used as they are.
        interpolation: How images are resized: nearest, bilinear, bicubic, box, hamming or lanczos.
        n_originals: For the first so many images the batch carries the original pixels, for figures.
        min_crop: Smallest share of an image's area that the random crops of training keep, in (0, 1].

    Attributes:
        read_done: Gives the paths, as rows hold them, of images that testing leaves out.
        listing_file: Where the first process of all writes the list of images, for all to read it. None = each process
            lists the folder itself.
        limit: Of its share of the images, each process tests the first so many batches, a whole number or, below 1.0,
            a share of them. Unlike Lightning's limit, it counts what has rows already too, so that a limited run that
            is started again ends where it was to end. Not for shards.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("cat", "dog"):
        ...         Path(folder, name).mkdir()
        ...         Image.new("RGB", (50, 40)).save(Path(folder, name, "a.png"))
        ...     data = ImageFolderDataModule(folder, num_workers=0)
        ...     data.setup("test")
        ...     batch = next(iter(data.test_dataloader()))
        >>> batch["path"], batch["label"], batch["image"].shape
        (['cat/a.png', 'dog/a.png'], tensor([0, 1]), torch.Size([2, 3, 224, 224]))
    """

    def __init__(
        self,
        root: str,
        boxes: str | None = None,
        batch_size: int = 32,
        num_workers: int | None = None,
        class_names: Sequence[str] | None = None,
        input_size: int = 224,
        resize_size: int | None = 256,
        n_originals: int = 0,
        min_crop: float = 0.5,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise DataError(f"data.batch_size must be at least 1, got {batch_size}.")
        if num_workers is not None and num_workers < 0:
            raise DataError(f"data.num_workers must be at least 0, got {num_workers}.")
        if boxes is not None and not Path(boxes).expanduser().is_dir():
            raise DataError(f"The folder of box annotations {boxes} (data.boxes) does not exist.")
        self.root = Path(root).expanduser()
        self.boxes = None if boxes is None else Path(boxes).expanduser()
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.class_names = None if class_names is None else checked_names(class_names)
        self.preprocess = Preprocess(resize_size, input_size, interpolation)
        self.n_originals = n_originals
        self.min_crop = min_crop
        self.test_root = self.root
        # The list is made once, by the first process of all.
        self.prepare_data_per_node = False
        self.read_done: Callable[[], set[str]] = set
        self.listing_file: Path | None = None
        self.limit: float = 1.0
        self._listed: Listing | None = None
        # There may be fewer images left than devices.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def prepare_data(self) -> None:
        if self.listing_file is not None:
            listing = self._list().without(self.read_done())
            listing.save(self.listing_file)
            self._listed = listing.load(self.listing_file)  # takes no memory of its own

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_listing, self.val_listing = self._list_for_training()
        elif self.listing_file is not None:
            self.listing = load_listing(self.listing_file)
        else:
            self.listing = self._read_list().without(self.read_done())

    def limit_to(self, limit: float) -> bool:
        """Takes a limit, if it can: a share of images that nobody has counted is not known before they are read."""
        if not kind_at(self.test_root).is_counted:
            return False
        self.limit = limit
        return True

    @property
    def has_boxes(self) -> bool | None:
        """Whether boxes come with the images; None = shards may hold some, which is not known before they are read."""
        if self.boxes is not None:
            return True
        return False if kind_at(self.test_root).is_counted else None

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be tested, and the files of their boxes, from others: counts and hashes of names."""
        found = self._list().fingerprint()
        if self.boxes is not None:
            found["n_boxes"], found["boxes_sha256"] = hash_files(self.boxes, [".xml"])
        return found

    def _list(self) -> Listing:
        if self._listed is None:
            self._listed = self._read_list()
        return self._listed

    def _read_list(self) -> Listing:
        return kind_at(self.test_root).found_at(self.test_root, self.class_names)

    def train_class_names(self) -> list[str]:
        """The names of the class folders that :meth:`train_dataloader` reads, in order."""
        train = self.root / "train"
        folder = train if train.is_dir() else self.root
        if not folder.is_dir() or not class_folders(folder):
            raise DataError(
                f"{self.root} holds no class folders to train on: it should hold {self.root}/CLASS/*.jpg, or "
                "such folders in train and in val."
            )
        return class_folders(folder)

    def train_dataloader(self) -> DataLoader[Sample | Failure]:
        crop = self.preprocess.input_size
        augment = v2.Compose(
            [
                v2.RandomResizedCrop(
                    crop, scale=(self.min_crop, 1.0), ratio=(0.8, 1.25), interpolation=self.preprocess.mode
                ),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        # A last batch of few images is a noisy step; but of few batches none can be spared.
        drop_last = len(self.train_listing) >= 20 * self.batch_size
        return self._loader(ImageDataset(self.train_listing, SampleReader(augment)), shuffle=True, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Sample | Failure]:
        return self._loader(ImageDataset(self.val_listing, SampleReader(self.preprocess)))

    def test_dataloader(self) -> Iterable[Batch]:
        reader = SampleReader(self.preprocess, self.boxes, self.class_names, self.n_originals)
        # Lightning's own sampler repeats images where they do not divide evenly; these neither repeat nor pad.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self.listing.loader(reader, Share(rank, world, self.limit), self._options())

    def _options(self) -> LoaderOptions:
        """Options that all loaders have in common."""
        workers = self.num_workers
        if workers is None:
            workers = default_workers(self.trainer.num_devices if self.trainer else 1)
        return {"batch_size": self.batch_size, "num_workers": workers, "pin_memory": torch.cuda.is_available()}

    def _loader(
        self, dataset: ImageDataset, shuffle: bool = False, drop_last: bool = False
    ) -> DataLoader[Sample | Failure]:
        options = self._options()
        return DataLoader(
            dataset,
            shuffle=shuffle,
            drop_last=drop_last,
            collate_fn=collate,
            persistent_workers=options["num_workers"] > 0,
            **options,
        )

    def _list_for_training(self) -> tuple[FolderListing, FolderListing]:
        names = self.class_names or self.train_class_names()
        if (self.root / "train").is_dir():
            if not (self.root / "val").is_dir():
                raise DataError(f"{self.root} has a folder train, but none named val to validate on.")
            return list_folder(self.root / "train", names), list_folder(self.root / "val", names)
        listing = list_folder(self.root, names)
        held_out = np.array([hashlib.sha256(path.as_py()).digest()[0] < 256 // 5 for path in listing.paths], dtype=bool)
        train, val = listing.select(~held_out), listing.select(held_out)
        if not len(train) or not len(val):
            raise DataError(f"{self.root} holds too few images ({len(listing)}) to train and validate on.")
        return train, val
