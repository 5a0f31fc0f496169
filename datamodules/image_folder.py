"""Streams ImageNet-style folders of images, ``root/<class>/*.JPEG``, one flat folder without labels, or shards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from datamodules.batch import Batch
from datamodules.classes import checked_names
from datamodules.errors import DataError
from datamodules.pixels import BytesDataModule
from datamodules.reading.annotations import folder_of_boxes
from datamodules.reading.copied_ahead import CopiedAhead, CudaCopies
from datamodules.reading.decoding import Preprocess
from datamodules.reading.samples import Failure, Sample, SampleReader, collate
from datamodules.reading.worker_loader import worker_loader
from datamodules.reading.workers import default_workers
from datamodules.sources.counted import CountedListing
from datamodules.sources.files import class_folders, hash_files, holds_images
from datamodules.sources.folder import FolderListing, ImageDataset, list_folder
from datamodules.sources.kinds import kind_at, load_listing
from datamodules.sources.label_files import label_file
from datamodules.sources.listing import Listing, LoaderOptions, Share
from datamodules.sources.subsets import Subset
from datamodules.sources.wishes import Wishes
from datamodules.text import Text, Texts


class ImageFolderDataModule(BytesDataModule):
    """Streams the images of ``root/<class>/*.JPEG``, of a flat folder, or of shards, each once over all devices.

    A class folder is called as a class of the network is, or by the WordNet id (``n02123045``) of an ImageNet class,
    also if only some of the 1,000 are there; see :class:`~datamodules.classes.ClassTable`.

    Args:
        root: Folder of class folders, or of images; or tar shards in WebDataset's layout, or decoded ones: a folder
            that holds them, or a pattern such as val-{0000..0049}.tar. Training looks for ``root/train`` and
            ``root/val``; where they do not exist, a fifth of the images, chosen by the hash of their paths, is held
            out for validation.
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
        labels: File that says the class of each image: a table (CSV, TSV) of paths and classes, Kaggle's
            LOC_val_solution.csv, or ILSVRC's list of numbers, which needs ``synsets``. null = the folders say it or,
            where there are none, the boxes.
        synsets: In which order ILSVRC's list numbers the classes: meta.mat of its development kit, or a text file with
            a WordNet id a line.
        include: Patterns of paths, such as 'n021*': only images that match one, or that lie in a folder that does.
        limit_per_class: Only so many images of each class.
        sample: Only so many images in all. A smaller sample of the same seed is a part of a larger one.
        seed: Which images ``limit_per_class`` and ``sample`` choose, by a hash of it and the paths.
        exif_orientation: Whether images are turned as their EXIF orientation asks. It is not in published ImageNet
            numbers; where it is off, a run says how many images asked.

    Attributes:
        notes: What was left out of the listing or had to be decided, in sentences without their full stops.
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
        >>> batch["path"], batch["label"], batch["image"].shape, batch["image"].dtype
        (['cat/a.png', 'dog/a.png'], tensor([0, 1]), torch.Size([2, 3, 224, 224]), torch.uint8)
    """

    def __init__(
        self,
        root: Text,
        boxes: Text | None = None,
        batch_size: int = 32,
        num_workers: int | None = None,
        class_names: Texts | None = None,
        input_size: int = 224,
        resize_size: int | None = 256,
        n_originals: int = 0,
        min_crop: float = 0.5,
        interpolation: str = "bilinear",
        labels: Text | None = None,
        synsets: Text | None = None,
        include: Texts | None = None,
        limit_per_class: int | None = None,
        sample: int | None = None,
        seed: int = 0,
        exif_orientation: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise DataError(f"data.batch_size must be at least 1, got {batch_size}.")
        if num_workers is not None and num_workers < 0:
            raise DataError(f"data.num_workers must be at least 0, got {num_workers}.")
        if n_originals < 0:
            raise DataError(f"data.n_originals must be at least 0, got {n_originals}.")
        if not 0 < min_crop <= 1:
            raise DataError(f"data.min_crop must be a share of an image's area, above 0 and at most 1, got {min_crop}.")
        self.root = Path(root).expanduser()
        self.boxes = folder_of_boxes(boxes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.class_names = None if class_names is None else checked_names(class_names)
        self.preprocess = Preprocess(resize_size, input_size, interpolation)
        patterns = (include,) if isinstance(include, str) else tuple(include or ())
        subset = Subset(patterns, limit_per_class, sample, seed)
        self.wishes = Wishes(label_file(labels, synsets), self.boxes, subset)
        self.notes: Sequence[str] = ()
        self.n_originals = n_originals
        self.min_crop = min_crop
        self.exif_orientation = exif_orientation
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
        return None if kind_at(self.test_root).may_hold_boxes else False

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be tested, and the files of their boxes, from others: counts and hashes of names."""
        found = self._list().fingerprint()
        if self.boxes is not None:
            found["n_boxes"], found["boxes_sha256"] = hash_files(self.boxes, ".xml")
        return found

    @property
    def n_listed(self) -> int | None:
        """How many images testing is of, also those that are done or that a limit leaves out; None = not counted."""
        listing = self._list()
        return len(listing) if isinstance(listing, CountedListing) else None

    def _list(self) -> Listing:
        if self._listed is None:
            self._listed = self._read_list()
        return self._listed

    def _read_list(self) -> Listing:
        listing = kind_at(self.test_root).wished_at(self.test_root, self.class_names, self.wishes)
        listing.check(self._test_reader())
        listing.tell(self.test_root)
        self.notes = listing.notes
        return listing

    def train_class_names(self) -> list[str]:
        """The names of the class folders that :meth:`train_dataloader` reads, in order."""
        self._refuse_shards()
        train = self.root / "train"
        folder = train if train.is_dir() else self.root
        found = [name for name in class_folders(folder) if holds_images(folder, name)] if folder.is_dir() else []
        if not found:
            raise DataError(
                f"{self.root} holds no class folders to train on: it should hold {self.root}/CLASS/*.jpg, or "
                "such folders in train and in val."
            )
        return found

    def train_dataloader(self) -> DataLoader[Sample | Failure]:
        crop = self.preprocess.input_size
        augment = v2.Compose(
            [
                v2.RandomResizedCrop(
                    crop, scale=(self.min_crop, 1.0), ratio=(0.8, 1.25), interpolation=self.preprocess.mode
                ),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
            ]
        )
        # A last batch of few images is a noisy step; but of few batches none can be spared.
        drop_last = len(self.train_listing) >= 20 * self.batch_size
        reader = SampleReader(augment, exif_orientation=self.exif_orientation)
        return self._loader(ImageDataset(self.train_listing, reader), shuffle=True, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Sample | Failure]:
        reader = SampleReader(self.preprocess, exif_orientation=self.exif_orientation)
        return self._loader(ImageDataset(self.val_listing, reader))

    def test_dataloader(self) -> Iterable[Batch]:
        # Lightning's own sampler repeats images where they do not divide evenly; these neither repeat nor pad.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        loader = self.listing.loader(self._test_reader(), Share(rank, world, self.limit), self._options())
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return CopiedAhead(loader, CudaCopies(device)) if device.type == "cuda" else loader

    def _test_reader(self) -> SampleReader:
        return SampleReader(self.preprocess, self.boxes, self.class_names, self.n_originals, self.exif_orientation)

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
        return worker_loader(
            dataset,
            collate,
            sample_bytes=dataset.reader.sample_bytes,
            shuffle=shuffle,
            drop_last=drop_last,
            persistent_workers=options["num_workers"] > 0,
            **options,
        )

    def _list_for_training(self) -> tuple[FolderListing, FolderListing]:
        if self.wishes.labels is not None:
            raise DataError("data.labels is for evaluation; training learns the classes of class folders.")
        self._refuse_shards()
        names = self.class_names or self.train_class_names()
        if (self.root / "train").is_dir():
            if not (self.root / "val").is_dir():
                raise DataError(f"{self.root} has a folder train, but none named val to validate on.")
            train, val = (list_folder(self.root / part, names, self.wishes) for part in ("train", "val"))
            train.tell(self.root / "train")
            val.tell(self.root / "val")
            return train, val
        listing = list_folder(self.root, names, self.wishes)
        listing.tell(self.root)
        held_out = np.array([hashlib.sha256(path.as_py()).digest()[0] < 256 // 5 for path in listing.paths], dtype=bool)
        train, val = listing.take(np.flatnonzero(~held_out)), listing.take(np.flatnonzero(held_out))
        if not len(train) or not len(val):
            raise DataError(f"{self.root} holds too few images ({len(listing)}) to train and validate on.")
        return train, val

    def _refuse_shards(self) -> None:
        for place in (self.root, self.root / "train", self.root / "val"):
            if kind_at(place) is not FolderListing:
                raise DataError(
                    f"{place} holds shards, which are for evaluation; training crops each image anew and at random, "
                    "from folders of the original files."
                )
