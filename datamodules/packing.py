"""Packs a folder of images: into tar shards in WebDataset's layout, or decoded, as a network sees them."""

from __future__ import annotations

import io
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from datamodules.boxes import find_annotation, folder_of_boxes, names_of_boxes
from datamodules.decoded import how_prepared, write_decoded
from datamodules.errors import DataError, printable
from datamodules.folder import FolderSource, list_folder
from datamodules.images.formats import extension_by_content, image_extensions
from datamodules.labels import LabelFile
from datamodules.loader import ThreadedLoader, default_workers
from datamodules.preprocess import Preprocess
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.source import names_of
from datamodules.tar_index import write_index
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
    source, out, boxes, classes = _listed(root, out, boxes, labels)
    n = len(source)
    with written_whole(out) as aside:
        aside.mkdir()
        for shard in track(range(-(-n // images_per_shard))):
            numbers = range(n)[shard * images_per_shard : (shard + 1) * images_per_shard]
            _write_shard(source, numbers, boxes, classes, aside / f"{shard:05d}.tar")
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
    source, out, boxes, classes = _listed(root, out, boxes, labels)
    n = len(source)
    n_bytes, there = 3 * preprocess.input_size**2, next(folder for folder in out.absolute().parents if folder.exists())
    if n * n_bytes > (free := shutil.disk_usage(there).free):
        raise DataError(
            f"{n:,} images of {n_bytes:,} bytes take {n * n_bytes / 1e9:,.1f} GB, and {there} has {free / 1e9:,.1f} GB "
            "left."
        )
    reader = SampleReader(preprocess, boxes, (), ORIGINALS, exif_orientation)

    def packed(number: int) -> tuple[Sample | Failure, str | None, Sequence[str] | None]:
        path = source.path(number)
        image = reader.prepare(source.root / path, path, number)
        names = names_of_boxes(find_annotation(boxes, path)) if "failed" in image else image["box_names"]
        return image, classes.get(printable(path)), names

    workers = default_workers() if num_workers is None else num_workers
    batches = ThreadedLoader(packed, range(n), _BATCH, workers, list)
    images = zip((image for batch in batches for image in batch), track(range(n)))
    with written_whole(out) as aside:
        aside.mkdir()
        how = how_prepared(preprocess, exif_orientation)
        write_decoded(aside, (image for image, _ in images), n, preprocess.input_size, how)
    return n


def _listed(
    root: str | Path, out: str | Path, boxes: str | Path | None, labels: LabelFile | None
) -> tuple[FolderSource, Path, Path | None, Mapping[str, str]]:
    """The images, where they go, where their boxes lie, and the classes that their folders do not say.

    Logs what is left out, and what a killed process left behind.
    """
    out, boxes = Path(out).expanduser(), folder_of_boxes(boxes)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder. Name another --out, or delete it.")
    if left := unfinished(out):
        logger.warning("%s is being written, or was left behind by a process that was killed; then delete it.", left[0])
    source = list_folder(root, labels=labels, boxes=boxes)
    source.log_notes(root)
    names = source.names()
    if labels is not None:
        # An empty text: unlabelled, whatever the folder is called.
        texts, _ = labels.match(names_of(source.columns["path"]))
        return source, out, boxes, dict(zip(names, texts.fill_null("").to_pylist()))
    folders = {name: name.partition("/")[0] for name in names if "/" in name}
    are_numbers = all(folder.isascii() and folder.isdecimal() for folder in folders.values())
    needed = {name: folder for name, folder in folders.items() if are_numbers or name.count("/") > 1}
    return source, out, boxes, needed


def _write_shard(
    source: FolderSource, numbers: range, boxes: Path | None, classes: Mapping[str, str], shard: Path
) -> None:
    keys: set[str] = set()
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT) as tar:
        for number in numbers:
            path = source.path(number)
            content = _read(source.root / path, path)
            key, suffix = _name_in_shard(path, content, number)
            if key in keys:
                key = f"{key}_{number}"
            keys.add(key)
            sample = {suffix: content}
            if f"{key}.{suffix}" != path:
                sample["path"] = os.fsencode(path)
            if printable(path) in classes:
                sample["cls"] = classes[printable(path)].encode()
            if annotation := find_annotation(boxes, path):
                sample["xml"] = _read(annotation, annotation)
            for ending, part in sorted(sample.items()):
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(part)
                tar.addfile(header, io.BytesIO(part))


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
        stem, extension = path, extension_by_content(io.BytesIO(content)) or ".jpg"
    folder, slash, name = stem.rpartition("/")
    # WebDataset's own files are called so, which it leaves out.
    is_reserved = path.startswith("__") and path.partition("/")[0].endswith("__")
    if "." in name or stem == path or is_reserved:
        folder = f"images/{folder}" if is_reserved else folder
        return f"{folder}{slash}{name.replace('.', '_')}_{number}", extension[1:]
    return stem, extension[1:]
