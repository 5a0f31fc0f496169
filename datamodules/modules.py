"""LightningDataModules of images: folders and what was packed of them, and files and addresses to predict."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.batch import Batch, with_pixels
from datamodules.boxes import folder_of_boxes
from datamodules.classes import checked_names
from datamodules.decoded import DecodedSource
from datamodules.errors import DataError, at_least
from datamodules.folder import FolderSource
from datamodules.labels import label_file
from datamodules.loader import MARKS, CopiedAhead, ThreadedLoader, default_workers, forget, lethal, marked
from datamodules.preprocess import Preprocess, PreprocessOptions
from datamodules.reader import SampleReader, collate
from datamodules.remote import is_address
from datamodules.source import ListingOptions, Source
from datamodules.subset import Subset
from datamodules.tar import TarSource
from datamodules.text import Text, Texts
from datamodules.training import RandomCrops, list_for_training, read_batch, train_class_names

LISTING = "listing.arrow"
"""File of RUN that holds the list of images."""

KINDS: tuple[type[Source], ...] = (TarSource, DecodedSource, FolderSource)
"""In the order in which they are asked; the last one takes whatever there is, if only to say what is wrong with it."""


def kind_at(root: Path | str) -> type[Source]:
    """How the images at ``root`` lie."""
    return next(kind for kind in KINDS if kind.matches(root))


class BytesDataModule(pl.LightningDataModule):
    """A LightningDataModule whose loaders give bytes; any LightningModule gets floats in [0, 1] of them.

    Bytes are a quarter of what is pinned, and moved to the device.
    """

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """The batch with pixels in [0, 1], of the precision of the trainer, which it has given the weights."""
        batch = with_pixels(batch)
        if self.trainer is not None:
            batch["image"] = self.trainer.precision_plugin.convert_input(batch["image"])
        return batch


class ImageFolderDataModule(BytesDataModule):
    """Streams the images of ``root/<class>/*.JPEG``, of a flat folder, or of shards, each once over all devices.

    A class folder is called as a class of the network is, or by the WordNet id (``n02123045``) of an ImageNet class,
    also if only some of the 1,000 are there; see :class:`~datamodules.classes.ClassTable`.

    Args:
        root: Folder of class folders, or of images; or tar shards in WebDataset's layout: a folder that holds them, a
            pattern such as val-{0000..0049}.tar or val-*.tar, or several of either, with :: between them, each here or
            at an address (s3://bucket/val-{0000..0049}.tar); or a folder of decoded images. Training looks for
            ``root/train`` and ``root/val``; where they do not exist, a fifth of the images, chosen by the hash of their
            paths, is held out for validation.
        boxes: Folder of box annotations in ILSVRC's XML layout, ``boxes/<class>/<name>.xml`` or ``boxes/<name>.xml``.
        batch_size: Images in a batch, on each device.
        num_workers: Threads that read images, for each device; 0 = the main one reads. null = the CPUs divided by the
            devices, at most 8. Training starts as many processes.
        class_names: Names of the network's classes, in the order of its outputs. null numbers the class folders.
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
        **preprocessing: What the network sees of an image, see :class:`~datamodules.preprocess.PreprocessOptions`.

    Attributes:
        notes: What was left out of the listing or had to be decided, in sentences without their full stops.
        source: The images to be tested, once the module is set up; the first process of a run lists them for all.

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
        n_originals: int = 0,
        min_crop: float = 0.5,
        labels: Text | None = None,
        synsets: Text | None = None,
        include: Texts | None = None,
        limit_per_class: int | None = None,
        sample: int | None = None,
        seed: int = 0,
        exif_orientation: bool = False,
        **preprocessing: Unpack[PreprocessOptions],
    ) -> None:
        super().__init__()
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers, n_originals=n_originals)
        if not 0 < min_crop <= 1:
            raise DataError(f"data.min_crop must be a share of an image's area, above 0 and at most 1, got {min_crop}.")
        self.root = Path(root).expanduser()
        self.test_root = root if is_address(root) else self.root
        self.boxes = folder_of_boxes(boxes)
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.class_names = None if class_names is None else checked_names(class_names)
        self.preprocess = Preprocess(**preprocessing)
        patterns = (include,) if isinstance(include, str) else tuple(include or ())
        subset = Subset(patterns, limit_per_class, sample, seed)
        self.options = ListingOptions(self.class_names, label_file(labels, synsets), self.boxes, subset)
        self.notes: Sequence[str] = ()
        self.n_originals = n_originals
        self.min_crop = min_crop
        self.exif_orientation = exif_orientation
        # The list is made once, by the first process of all.
        self.prepare_data_per_node = False
        self._run: Path | None = None
        self._read_done: Callable[[], set[str]] = set
        self._limit: float = 1.0
        self._listed: Source | None = None
        # There may be fewer images left than devices.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def begin_run(self, run: Path, read_done: Callable[[], set[str]], limit: float) -> bool:
        self._run, self._read_done, self._limit = run, read_done, limit
        self.options = replace(self.options, earlier=run / LISTING)
        return True

    def prepare_data(self) -> None:
        if self._run is None:
            return
        file, marks = self._run / LISTING, self._run / MARKS
        source = self._list().without(self._read_done())
        source.save(file)
        self._listed = source.load(file)  # takes no memory of its own
        if numbers := [number for number in marked(marks) if number < len(source) and not source.done[number]]:
            read = partial(self._listed.read, reader=self._test_reader())
            self._listed.with_errors(lethal(read, numbers)).save(file)
            self._listed = source.load(file)
        shutil.rmtree(marks, ignore_errors=True)

    def end_early(self) -> None:
        if self._marks is not None:
            forget(self._marks)

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self._refuse_packed()
            self.train_source, self.val_source = list_for_training(self.root, self.options)
        else:
            self.source = self._list() if self._run is None else Source.load(self._run / LISTING)

    @property
    def has_boxes(self) -> bool:
        """Whether boxes come with the images."""
        return self.boxes is not None or self._list().may_have_boxes

    @property
    def n_listed(self) -> int:
        """How many images testing is of, also those that are done or that a limit leaves out."""
        return len(self._list())

    def n_left(self, rank: int, world: int) -> int:
        """How many images the process of a number is to test among ``world``, once the module is set up."""
        return len(self.source.todo(rank, world, self.batch_size, self._limit))

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be tested, and the files of their boxes, from others: counts and hashes of names."""
        found = self._list().fingerprint()
        if self.boxes is not None:
            boxes = os.fsencode("\0".join(sorted(glob.glob("**/*.xml", root_dir=self.boxes, recursive=True))))
            found["n_boxes"] = boxes.count(b"\0") + bool(boxes)
            found["boxes_sha256"] = hashlib.sha256(boxes).hexdigest()
        return found

    def _list(self) -> Source:
        if self._listed is None:
            source = kind_at(self.test_root).open(self.test_root, self.options)
            source.check(self._test_reader())
            source.log_notes(self.test_root)
            self.notes = source.notes
            self._listed = source
        return self._listed

    def train_class_names(self) -> list[str]:
        """The names of the class folders that :meth:`train_dataloader` reads, in order."""
        self._refuse_packed()
        return train_class_names(self.root)

    def train_dataloader(self) -> DataLoader[int]:
        crops = RandomCrops(**vars(self.preprocess), min_crop=self.min_crop)
        # A last batch of few images is a noisy step; but of few batches none can be spared.
        drop_last = len(self.train_source) >= 20 * self.batch_size
        return self._training_loader(self.train_source, crops, shuffle=True, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[int]:
        return self._training_loader(self.val_source, self.preprocess)

    def test_dataloader(self) -> Iterable[Batch]:
        # Lightning's own sampler repeats images where they do not divide evenly; these neither repeat nor pad.
        world = self.trainer.world_size if self.trainer else 1
        reader = self._test_reader()
        self.source.check(reader)
        numbers = self.source.todo(self._rank, world, self.batch_size, self._limit)
        loader = ThreadedLoader(
            partial(self.source.planned(numbers).read, reader=reader),
            numbers,
            self.batch_size,
            self._n_workers(),
            collate,
            marks=self._marks,
        )
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return CopiedAhead(loader, device) if device.type == "cuda" else loader

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _marks(self) -> Path | None:
        """Where the threads of this process note what they read; None = there is no RUN."""
        return None if self._run is None else self._run / MARKS / str(self._rank)

    def _test_reader(self) -> SampleReader:
        return SampleReader(self.preprocess, self.boxes, self.class_names, self.n_originals, self.exif_orientation)

    def _n_workers(self) -> int:
        if self.num_workers is not None:
            return self.num_workers
        return default_workers(self.trainer.num_devices if self.trainer else 1)

    def _training_loader(self, source: Source, preprocess: Preprocess, **options: Any) -> DataLoader[int]:
        n_workers, reader = self._n_workers(), SampleReader(preprocess, exif_orientation=self.exif_orientation)
        return DataLoader(
            cast(Dataset[int], range(len(source))),
            self.batch_size,
            num_workers=n_workers,
            persistent_workers=n_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=partial(read_batch, source=source, reader=reader),
            **options,
        )

    def _refuse_packed(self) -> None:
        for place in dict.fromkeys((self.test_root, self.root, self.root / "train", self.root / "val")):
            if kind_at(place) is not FolderSource:
                raise DataError(
                    f"{place} holds shards or decoded images, which are for evaluation; training crops each image anew "
                    "and at random, from folders of the original files."
                )
