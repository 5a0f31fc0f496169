"""Packs a folder of images: into tar shards in WebDataset's layout, or decoded, as a network sees them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from webdataset import TarWriter

from datamodules.boxes import find_annotation, folder_of_boxes, names_of_boxes
from datamodules.decoded import Packed, how_prepared, write_decoded
from datamodules.errors import DataError, printable
from datamodules.folder import FolderSource, list_folder
from datamodules.images.formats import extension_by_content, image_extensions
from datamodules.labels import LabelFile
from datamodules.loader import ThreadedLoader, default_workers
from datamodules.preprocess import Preprocess
from datamodules.reader import Failure, PreparedImage, SampleReader, failed
from datamodules.tar import write_index
from datamodules.writing import unfinished, written_whole

logger = logging.getLogger(__name__)

ORIGINALS = 64
"""Of so many images that are packed decoded, the first ones, the original goes along for its figure."""

_BATCH = 16


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
        (8, ['00000.tar', '00001.tar', 'index.parquet'])
    """
    if images_per_shard < 1:
        raise DataError(f"images_per_shard must be at least 1, got {images_per_shard}.")
    packing = Packing.of(root, out, boxes, labels)
    n = len(packing.source)
    with written_whole(packing.out) as aside:
        aside.mkdir()
        for shard in track(range(-(-n // images_per_shard))):
            numbers = range(n)[shard * images_per_shard : (shard + 1) * images_per_shard]
            _write_shard(packing, numbers, aside / f"{shard:05d}.tar")
        write_index(aside)
    return n


def pack_decoded(
    root: str | Path,
    out: str | Path,
    preprocess: Preprocess,
    boxes: str | Path | None = None,
    track: Callable[[range], Iterable[int]] = iter,
    labels: LabelFile | None = None,
    exif_orientation: bool = False,
    num_workers: int | None = None,
) -> int:
    """Writes the images of a folder as a network sees them, in the order of the listing, as one array and a table.

    What a batch of the folder holds stands there, but for the labels of images and boxes: instead of these their
    classes' names, so that networks of other classes can read them too. An image that cannot be decoded is a row that
    says so. The same folder gives the same files, to the bit.

    Args:
        root: Folder of class folders, or of images.
        out: Folder to write; it appears when all is written.
        preprocess: What the network sees of an image. Networks that see something else cannot read the files.
        boxes: Folder of box annotations.
        track: Wraps the numbers of the images, to show how far it is.
        labels: A file that gives the class of each image.
        exif_orientation: Whether images are turned as their EXIF orientation asks.
        num_workers: Threads that decode images; 0 = the main one, None = as many as there are CPUs, at most 8.

    Returns:
        The number of images.

    Raises:
        DataError: If an option or the folder cannot be used, ``out`` holds something, or the disk is too small.
    """
    packing = Packing.of(root, out, boxes, labels)
    source, n = packing.source, len(packing.source)
    _refuse_small_disk(packing.out, n, 3 * preprocess.input_size**2)
    reader = SampleReader(preprocess, packing.boxes, (), ORIGINALS, exif_orientation)

    def packed(number: int) -> Packed:
        path = source.path(number)
        image = _prepared(source, reader, number)
        if "failed" in image:
            names = names_of_boxes(find_annotation(packing.boxes, path))
        else:
            names = None if image["boxes"] is None else image["boxes"].names
        return Packed(image, packing.classes.get(printable(path)), names)

    workers = default_workers() if num_workers is None else num_workers
    loader = ThreadedLoader(packed, range(n), _BATCH, workers, list)
    images = (image for batch in loader for image in batch)
    with written_whole(packing.out) as aside:
        aside.mkdir()
        tracked = (image for _, image in zip(track(range(n)), images))
        write_decoded(aside, tracked, n, how_prepared(preprocess, exif_orientation))
    return n


def _prepared(source: FolderSource, reader: SampleReader, number: int) -> PreparedImage | Failure:
    path = source.path(number)
    try:
        return reader.prepare(source.root / path, path, number)
    except Exception as error:
        return failed(path, f"cannot be read: {type(error).__name__}: {error}")


def _refuse_small_disk(out: Path, n: int, n_bytes: int) -> None:
    there = next(folder for folder in out.absolute().parents if folder.exists())
    needed, free = n * n_bytes, shutil.disk_usage(there).free
    if needed > free:
        raise DataError(
            f"{n:,} images of {n_bytes:,} bytes take {needed / 1e9:,.1f} GB, and {there} has {free / 1e9:,.1f} GB left."
        )


class Packing(NamedTuple):
    """What is to be packed, and where.

    Attributes:
        source: The images.
        out: Folder to write; it does not exist yet, or is empty.
        boxes: Folder of box annotations.
        classes: Path -> class, of the images whose folder does not give it to whoever sees the path alone.
    """

    source: FolderSource
    out: Path
    boxes: Path | None
    classes: dict[str, str]

    @classmethod
    def of(cls, root: str | Path, out: str | Path, boxes: str | Path | None, labels: LabelFile | None) -> Self:
        """What is given, checked; logs what is left out, and what a killed one left behind."""
        root, out, boxes = Path(root).expanduser(), Path(out).expanduser(), folder_of_boxes(boxes)
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise DataError(f"{out} exists and is not an empty folder. Name another --out, or delete it.")
        if left := unfinished(out):
            logger.warning(
                "%s is being written, or was left behind by a process that was killed; then delete it.", left[0]
            )
        source = list_folder(root, labels=labels, boxes=boxes)
        source.log_notes(root)
        return cls(source, out, boxes, _classes(source, labels))


def _classes(source: FolderSource, labels: LabelFile | None) -> dict[str, str]:
    """Path -> class, of the images whose folder does not say it to whoever sees the path alone."""
    paths = [*source.names()]
    if labels is not None:
        # An empty text: unlabelled, whatever the folder is called.
        return {path: text or "" for path, text in zip(paths, labels.of(paths)[0])}
    folders = {path: path.partition("/")[0] for path in paths if "/" in path}
    numbered = all(folder.isascii() and folder.isdecimal() for folder in folders.values())
    return {path: folder for path, folder in folders.items() if numbered or path.count("/") > 1}


def _write_shard(packing: Packing, numbers: range, shard: Path) -> None:
    source, classes = packing.source, packing.classes
    keys: set[str] = set()
    with (
        shard.open("wb") as file,
        TarWriter(file, user="", group="", mode=0o644, mtime=0, format="GNU_FORMAT", encoder=False) as writer,
    ):
        for number in numbers:
            path = source.path(number)
            content = _read(source.root / path, path)
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
