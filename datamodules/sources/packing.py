"""Packs a folder of images into tar shards, in WebDataset's layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from webdataset import TarWriter

from datamodules.errors import DataError
from datamodules.reading.annotations import find_annotation, folder_of_boxes
from datamodules.reading.formats import extension_by_content, image_extensions
from datamodules.reading.samples import printable
from datamodules.sources.folder import FolderListing, list_folder
from datamodules.sources.label_files import LabelFile
from datamodules.sources.wishes import Wishes
from datamodules.writing import written_whole


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
    root, out = Path(root).expanduser(), Path(out).expanduser()
    boxes = folder_of_boxes(boxes)
    if images_per_shard < 1:
        raise DataError(f"images_per_shard must be at least 1, got {images_per_shard}.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder. Name another --out, or delete it.")
    listing = list_folder(root, wishes=Wishes(labels=labels))
    listing.tell(root)
    with written_whole(out) as aside:
        aside.mkdir()
        classes = _classes(listing, labels)
        for shard in track(range(-(-len(listing) // images_per_shard))):
            numbers = range(shard * images_per_shard, min(len(listing), (shard + 1) * images_per_shard))
            _write_shard(listing, numbers, aside / f"{shard:05d}.tar", boxes, classes)
    return len(listing)


def _classes(listing: FolderListing, labels: LabelFile | None) -> dict[str, str]:
    """Path -> class, of the images whose folder does not say it to whoever sees the path alone."""
    paths = [printable(listing.path(number)) for number in range(len(listing))]
    if labels is not None:
        # An empty text: unlabelled, whatever the folder is called.
        return {path: text or "" for path, text in zip(paths, labels.of(paths)[0])}
    folders = {path: path.partition("/")[0] for path in paths if "/" in path}
    numbered = all(folder.isascii() and folder.isdecimal() for folder in folders.values())
    return {path: folder for path, folder in folders.items() if numbered or path.count("/") > 1}


def _write_shard(
    listing: FolderListing, numbers: range, shard: Path, boxes: Path | None, classes: Mapping[str, str]
) -> None:
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
            if annotation := find_annotation(boxes, path):
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
