"""Streams ImageNet-style folders of images, ``root/<class>/*.JPEG``, or one flat folder without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from datamodules.decoding import DecodingError, Preprocess, decode_image
from datamodules.imagenet import AnnotationError, read_annotation
from datamodules.listing import DataError, Listing, class_folders, label_table, list_folder, printable

ORIGINAL_SIZE = 1024
"""Originals that travel with a batch are reduced to at most this many pixels a side: they are for figures."""


class Original(NamedTuple):
    """An image before resize and crop, for figures: what the user recognizes.

    Attributes:
        pixels: uint8 ``(H, W, 3)``, reduced to at most 1,024 pixels a side. An array, since tensors of a batch are
            moved to the GPU, where figures have no use for them.
        view: What the model saw of it: (left, top, right, bottom) in its pixels.

    Example:
        >>> Original(np.zeros((300, 400, 3), np.uint8), (50.0, 0.0, 350.0, 300.0)).view
        (50.0, 0.0, 350.0, 300.0)
    """

    pixels: np.ndarray
    view: tuple[float, float, float, float]


class ImageDataset(Dataset):
    """The images of a listing as dicts, one sample each; a file that fails gives ``{"failed": (path, error)}``.

    Args:
        listing: The images.
        transform: RGB image -> float32 ``(3, H, W)`` in [0, 1].
        boxes: Folder of ILSVRC's XML annotations, or None.
        class_names: Names of the network's classes, to label the boxes by.
        n_originals: For the first so many images, the sample carries the original pixels too.
    """

    def __init__(
        self,
        listing: Listing,
        transform: Any,
        boxes: Path | None = None,
        class_names: Sequence[str] | None = None,
        n_originals: int = 0,
    ) -> None:
        self.listing = listing
        self.transform = transform
        self.boxes = boxes
        self.label_table = label_table(class_names or [])
        self.n_originals = n_originals

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.listing.path(index)
        try:
            image = decode_image(self.listing.root / path)
        except DecodingError as error:
            return {"failed": (printable(path), str(error))}
        boxes, box_labels, box_error = self._read_boxes(path, image)
        return {
            "image": self.transform(image),
            "label": int(self.listing.labels[index]),
            "index": index,
            "path": printable(path),
            "boxes": boxes,
            "box_labels": box_labels,
            "box_error": box_error,
            "original": self._original(image) if index < self.n_originals else None,
        }

    def _read_boxes(self, path: str, image: Image.Image) -> tuple[Tensor, Tensor, str | None]:
        """Boxes ``(K, 4)`` in what the model sees, their labels ``(K,)``, and what was wrong with the annotation."""
        empty = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
        if self.boxes is None:
            return *empty, None
        # ILSVRC keeps the annotations of train in class folders, those of val in one flat folder.
        candidates = [(self.boxes / path).with_suffix(".xml"), self.boxes / f"{Path(path).stem}.xml"]
        file = next((candidate for candidate in candidates if candidate.exists()), None)
        if file is None:
            return *empty, None
        try:
            annotation = read_annotation(file)
        except AnnotationError as error:
            return *empty, str(error)
        size = annotation.width, annotation.height
        if size != image.size:
            return *empty, f"{file} is of an image of {size[0]} × {size[1]} pixels, not {image.width} × {image.height}"
        labels = [self.label_table.get(name, -1) for name in annotation.names]
        boxes = torch.tensor(annotation.boxes, dtype=torch.float32).reshape(-1, 4)
        moved = self.transform.move_boxes(boxes, *image.size)
        return moved, torch.tensor(labels, dtype=torch.long), "; ".join(annotation.problems) or None

    def _original(self, image: Image.Image) -> Original:
        scale = min(1.0, ORIGINAL_SIZE / max(image.size))
        reduced = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        x, y = reduced.width / image.width, reduced.height / image.height
        left, top, right, bottom = self.transform.view(*image.size)
        return Original(np.array(reduced), (left * x, top * y, right * x, bottom * y))


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> batch: ``image`` float32 ``(N, 3, H, W)`` and so on; N counts the images that did not fail.

    The batch holds ``image``, ``label`` and ``index`` (long ``(N,)``), ``path``, ``boxes`` (N of ``(K, 4)``),
    ``box_labels`` (N of ``(K,)``, -1 = unknown), ``box_error`` (N of str or None), ``original`` (N of
    :class:`Original` or None), and ``failed``, a list of (path, error).
    """
    good = [sample for sample in samples if "failed" not in sample]
    batch: dict[str, Any] = {
        name: [sample[name] for sample in good] for name in ("path", "boxes", "box_labels", "box_error", "original")
    }
    batch["image"] = torch.stack([s["image"] for s in good]) if good else torch.zeros(0, 3, 1, 1)
    for name in ("label", "index"):
        batch[name] = torch.tensor([sample[name] for sample in good], dtype=torch.long)
    batch["failed"] = [sample["failed"] for sample in samples if "failed" in sample]
    return batch


class ImageFolderDataModule(pl.LightningDataModule):
    """Streams the images of ``root/<class>/*.JPEG``, or of a flat folder, each exactly once over all devices.

    A class folder named by a WordNet id (``n02123045``) is that ImageNet class, also if only some of the 1,000 are
    there; any other name has to be a class name of the network.

    Args:
        root: Folder of class folders, or of images. Training looks for ``root/train`` and ``root/val``; where they do
            not exist, a fifth of the images, chosen by the hash of their paths, is held out for validation.
        boxes: Folder of box annotations in ILSVRC's XML layout, ``boxes/<class>/<name>.xml`` or ``boxes/<name>.xml``.
        batch_size: Images in a batch, on each device.
        num_workers: Processes that decode images, for each device; 0 = the main one decodes. null = the CPUs divided
            by the devices, at most 8.
        class_names: Names of the network's classes, in the order of its outputs. null numbers the class folders.
        input_size: Height and width in pixels of what the model sees.
        resize_size: Length in pixels of the shorter side before the centre crop.
        n_originals: For the first so many images the batch carries the original pixels, for figures.
        min_crop: Smallest share of an image's area that the random crops of training keep, in (0, 1].

    Example:
        >>> import tempfile
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
        resize_size: int = 256,
        n_originals: int = 0,
        min_crop: float = 0.5,
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
        self.class_names = None if class_names is None else list(class_names)
        self.preprocess = Preprocess(resize_size, input_size)
        self.n_originals = n_originals
        self.min_crop = min_crop
        self.done: set[str] = set()
        # There may be fewer images left than devices.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train_listing, self.val_listing = self._list_for_training()
        else:
            self.listing = list_folder(self.root, self.class_names)

    def train_class_names(self) -> list[str]:
        """The names of the class folders that :meth:`train_dataloader` reads, in order."""
        train = self.root / "train"
        folder = train if train.is_dir() else self.root
        if not folder.is_dir() or not class_folders(folder):
            raise DataError(f"{self.root} holds no class folders to train on.")
        return class_folders(folder)

    def train_dataloader(self) -> DataLoader:
        crop = self.preprocess.input_size
        augment = v2.Compose(
            [
                v2.RandomResizedCrop(crop, scale=(self.min_crop, 1.0), ratio=(0.8, 1.25)),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )
        return self._loader(ImageDataset(self.train_listing, augment), shuffle=True, drop_last=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(ImageDataset(self.val_listing, self.preprocess))

    def test_dataloader(self) -> DataLoader:
        dataset = ImageDataset(self.listing, self.preprocess, self.boxes, self.class_names, self.n_originals)
        todo: Iterable[int] = range(len(dataset))
        if self.done:
            todo = [i for i in todo if printable(self.listing.path(i)) not in self.done]
        # Lightning's own sampler repeats images where they do not divide evenly; this one neither repeats nor pads.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self._loader(dataset, sampler=list(todo)[rank::world])

    def _loader(self, dataset: ImageDataset, **options: Any) -> DataLoader:
        workers = self.num_workers
        if workers is None:
            devices = self.trainer.num_devices if self.trainer else 1
            workers = max(1, min(8, len(os.sched_getaffinity(0)) // devices))
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            **options,
        )

    def _list_for_training(self) -> tuple[Listing, Listing]:
        names = self.class_names or self.train_class_names()
        if (self.root / "train").is_dir():
            if not (self.root / "val").is_dir():
                raise DataError(f"{self.root} has a folder train, but none named val to validate on.")
            return list_folder(self.root / "train", names), list_folder(self.root / "val", names)
        listing = list_folder(self.root, names)
        held_out = np.array([hashlib.sha256(path.as_py()).digest()[0] < 256 // 5 for path in listing.paths], dtype=bool)
        parts = [
            Listing(listing.root, listing.paths.filter(pa.array(mask)), listing.labels[mask])
            for mask in (~held_out, held_out)
        ]
        if not all(len(part) for part in parts):
            raise DataError(f"{self.root} holds too few images ({len(listing)}) to train and validate on.")
        return parts[0], parts[1]
