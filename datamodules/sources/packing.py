"""Packs a folder of images into tar shards, in WebDataset's layout."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from webdataset import TarWriter

from datamodules.errors import DataError
from datamodules.reading.annotations import find_annotation, folder_of_boxes
from datamodules.reading.formats import extension_by_content, image_extensions
from datamodules.reading.samples import printable
from datamodules.sources.folder import FolderListing, list_folder
from datamodules.sources.label_files import LabelFile
from datamodules.sources.wishes import Wishes
from datamodules.writing import unfinished, written_whole

logger = logging.getLogger(__name__)


def pack_folder(
    root: str | Path,
    out: str | Path,
    images_per_shard: int = 1000,
    boxes: str | Path | None = None,
    track: Callable[[range], Iterable[int]] = iter,
    labels: LabelFile | None = None,
) -> int:
    """Writes the images of a folder, byte by byte as they are and in the order of the listing, as ``out/00000.tar`` ...

    A sample's key is the image's path without its extension. Where that has a dot in it, is taken, or its extension is
    no image's, the key is another one and the path stands in the sample's ``.path``. Its class stands in ``.cls`` where
    the folder that it lies in does not say it. The same folder gives the same shards, to the bit.

    Args:
        root: Folder of class folders, or of images.
        out: Folder to write; it appears when all is written.
        images_per_shard: Images in a shard, at least 1; the last one may have fewer.
        boxes: Folder of box annotations; an image's goes into its sample as ``.xml``.
        track: Wraps the numbers of the shards, to show how far it is.
        labels: A file that says the class of each image, which goes into its sample as ``.cls``.

    Returns:
        The number of images.

    Raises:
        DataError: If an option or the folder cannot be used, ``out`` holds something, or a file cannot be read.

    Example:
        >>> import tempfile
        >>> from datamodules import write_shapes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_shapes(Path(folder, "shapes"), n_train=0, n_val=8, n_pairs=0, seed=0)
        ...     n = pack_folder(Path(folder, "shapes/val"), Path(folder, "shards"), images_per_shard=5)
        ...     n, sorted(path.name for path in Path(folder, "shards").iterdir())
        (8, ['00000.tar', '00001.tar'])
    """
    packing = Packing.of(root, out, images_per_shard, boxes, labels)
    with written_whole(packing.out) as aside:
        aside.mkdir()
        for shard in track(range(packing.n_shards)):
            _write_shard(packing, packing.numbers(shard), aside / f"{shard:05d}.tar")
    return len(packing.listing)


class Packing(NamedTuple):
    """What is to be packed, and how.

    Attributes:
        listing: The images.
        out: Folder to write; it does not exist yet, or is empty.
        images_per_shard: Images in a shard.
        boxes: Folder of box annotations.
        classes: Path -> class, of the images whose folder does not say it to whoever sees the path alone.
    """

    listing: FolderListing
    out: Path
    images_per_shard: int
    boxes: Path | None
    classes: dict[str, str]

    @classmethod
    def of(
        cls,
        root: str | Path,
        out: str | Path,
        images_per_shard: int,
        boxes: str | Path | None,
        labels: LabelFile | None,
    ) -> Self:
        """What :func:`pack_folder` is given, checked; says what is left out, and what a killed one left behind."""
        root, out, boxes = Path(root).expanduser(), Path(out).expanduser(), folder_of_boxes(boxes)
        if images_per_shard < 1:
            raise DataError(f"images_per_shard must be at least 1, got {images_per_shard}.")
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise DataError(f"{out} exists and is not an empty folder. Name another --out, or delete it.")
        if left := unfinished(out):
            logger.warning(
                "%s is being written, or was left behind by a process that was killed; then delete it.", left[0]
            )
        listing = list_folder(root, wishes=Wishes(labels=labels, boxes=boxes))
        listing.tell(root)
        return cls(listing, out, images_per_shard, boxes, _classes(listing, labels))

    @property
    def n_shards(self) -> int:
        return -(-len(self.listing) // self.images_per_shard)

    def numbers(self, shard: int) -> range:
        """Of the images in a shard."""
        return range(len(self.listing))[shard * self.images_per_shard : (shard + 1) * self.images_per_shard]


def _classes(listing: FolderListing, labels: LabelFile | None) -> dict[str, str]:
    """Path -> class, of the images whose folder does not say it to whoever sees the path alone."""
    paths = [printable(listing.path(number)) for number in range(len(listing))]
    if labels is not None:
        # An empty text: unlabelled, whatever the folder is called.
        return {path: text or "" for path, text in zip(paths, labels.of(paths)[0])}
    folders = {path: path.partition("/")[0] for path in paths if "/" in path}
    numbered = all(folder.isascii() and folder.isdecimal() for folder in folders.values())
    return {path: folder for path, folder in folders.items() if numbered or path.count("/") > 1}


def _write_shard(packing: Packing, numbers: range, shard: Path) -> None:
    listing, classes = packing.listing, packing.classes
    keys: set[str] = set()
    with (
        shard.open("wb") as file,
        TarWriter(file, user="", group="", mode=0o644, mtime=0, format="GNU_FORMAT", encoder=False) as writer,
    ):
        for number in numbers:
            path = listing.path(number)
            content = _read(listing.root / path, path)
            key, suffix = _name_in_shard(path, content, number)
            if key in keys:
                key = f"{key}_{number}"
            keys.add(key)
            # Elsewhere a sample's path is its key and its suffix.
            sample = {} if f"{key}.{suffix}" == path else {"path": os.fsencode(path)}
            sample[suffix] = content
            if printable(path) in classes:
                sample["cls"] = classes[printable(path)].encode()
            if annotation := find_annotation(packing.boxes, path):
                sample["xml"] = _read(annotation, annotation)
            writer.write({"__key__": key, **sample})


def _read(file: Path, shown: str | Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(str(shown))} cannot be packed: {error.strerror}. Repair or delete it.") from error


def _name_in_shard(path: str, content: bytes, number: int) -> tuple[str, str]:
    """Key and suffix of an image: its path, if readers of shards find both in it again; else another of its own."""
    stem, extension = os.path.splitext(path)
    if extension.lower() not in image_extensions():
        # An image by its content alone. Readers know what is one by its suffix.
        stem, extension = path, extension_by_content(content) or ".jpg"
    folder, slash, name = stem.rpartition("/")
    # WebDataset's own files are called so, which it leaves out.
    is_reserved = path.startswith("__") and path.partition("/")[0].endswith("__")
    if "." in name or stem == path or is_reserved:
        folder = f"images/{folder}" if is_reserved else folder
        return f"{folder}{slash}{name.replace('.', '_')}_{number}", extension[1:]
    return stem, extension[1:]
