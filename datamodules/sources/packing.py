"""Packs a folder of images into tar shards, in WebDataset's layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from webdataset import TarWriter

from datamodules.errors import DataError
from datamodules.reading.annotations import find_annotation
from datamodules.reading.samples import printable
from datamodules.sources.folder import FolderListing, list_folder
from datamodules.writing import written_whole


def pack_folder(
    root: Path,
    out: Path,
    images_per_shard: int = 1000,
    boxes: Path | None = None,
    track: Callable[[range], Iterable[int]] = iter,
) -> int:
    """Writes the images of a folder, byte by byte as they are and in the order of the listing, as ``out/00000.tar`` ...

    A sample's key is the image's path without its extension. Where that has a dot in it, or is taken, the key is
    another one and the path stands in the sample's ``.path``. The same folder gives the same shards, to the bit.

    Args:
        root: Folder of class folders, or of images.
        out: Folder to write; it appears when all is written.
        images_per_shard: Images in a shard, at least 1; the last one may have fewer.
        boxes: Folder of box annotations; an image's goes into its sample as ``.xml``.
        track: Wraps the numbers of the shards, to show how far it is.

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
    if images_per_shard < 1:
        raise DataError(f"images_per_shard must be at least 1, got {images_per_shard}.")
    if boxes is not None and not boxes.is_dir():
        raise DataError(f"The folder of box annotations {boxes} (data.boxes) does not exist.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists and is not an empty folder. Name another --out, or delete it.")
    listing = list_folder(root)
    with written_whole(out) as aside:
        aside.mkdir()
        for shard in track(range(-(-len(listing) // images_per_shard))):
            numbers = range(shard * images_per_shard, min(len(listing), (shard + 1) * images_per_shard))
            _write_shard(listing, numbers, aside / f"{shard:05d}.tar", boxes)
    return len(listing)


def _write_shard(listing: FolderListing, numbers: range, shard: Path, boxes: Path | None) -> None:
    keys: set[str] = set()
    with (
        shard.open("wb") as file,
        TarWriter(file, user="", group="", mode=0o644, mtime=0, format="GNU_FORMAT", encoder=False) as writer,
    ):
        for number in numbers:
            path = listing.path(number)
            sample, suffix = {}, os.path.splitext(path)[1].removeprefix(".")
            folder, slash, name = path.removesuffix(f".{suffix}").rpartition("/")
            key = folder + slash + name
            if "." in name or key in keys:
                key = f"{folder}{slash}{name.replace('.', '_')}_{number}"
                sample["path"] = os.fsencode(path)
            keys.add(key)
            annotation = find_annotation(boxes, path)
            try:
                sample |= {suffix: (listing.root / path).read_bytes()}
                sample |= {"xml": annotation.read_bytes()} if annotation else {}
            except OSError as error:
                raise DataError(
                    f"{printable(path)} cannot be packed: {error.strerror}. Repair or delete it."
                ) from error
            writer.write({"__key__": key, **sample})
