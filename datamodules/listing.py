"""Lists folders of images and labels them by the folders' names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from datamodules.decoding import list_images
from datamodules.imagenet import imagenet_class_names, imagenet_classes


class DataError(ValueError):
    """A folder that cannot be used as it is; the message names it and says what would have been right.

    Example:
        >>> list_folder("no/such/folder")
        Traceback (most recent call last):
        datamodules.listing.DataError: The image folder no/such/folder does not exist.
    """


@dataclass(frozen=True)
class Listing:
    """The images of a folder: paths relative to ``root`` (as the file system's bytes) and labels, -1 = unlabelled.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.

    Example:
        >>> listing = Listing(Path("photos"), pa.array([b"cat/a.jpg"], pa.large_binary()), np.array([281]))
        >>> len(listing), listing.path(0)
        (1, 'cat/a.jpg')
    """

    root: Path
    paths: pa.Array
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        return os.fsdecode(self.paths[index].as_py())


def list_folder(root: str | Path, class_names: Sequence[str] | None = None) -> Listing:
    """Lists a folder of class folders, or a flat folder of images.

    Args:
        root: The folder.
        class_names: Names of the network's classes, by which the folders are labelled (see :func:`match_labels`). None
            numbers the class folders in sorted order.

    Raises:
        DataError: If the folder does not exist, holds no images, holds images beside class folders, or a class
            folder's name is no class of the network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dog", "cat"):
        ...         Path(folder, name).mkdir()
        ...         Path(folder, name, "a.jpg").touch()
        ...     listing = list_folder(folder, ["dog", "bird", "cat"])
        >>> [(listing.path(k), int(listing.labels[k])) for k in range(2)]
        [('cat/a.jpg', 2), ('dog/a.jpg', 0)]
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The image folder {root} {'is not a folder' if root.exists() else 'does not exist'}.")
    folders = class_folders(root)
    loose = list_images(root)
    if loose and folders:
        raise DataError(
            f"{root} holds images ({loose[0]}, ...) beside folders ({folders[0]}, ...). It should hold either one "
            "folder for each class, or images alone."
        )
    if loose:
        return Listing(root, pa.array(map(os.fsencode, loose), pa.large_binary()), np.full(len(loose), -1))
    files = [[f"{folder}/{name}" for name in list_images(root / folder)] for folder in folders]
    if not any(files):
        raise DataError(
            f"{root} holds no images: neither {root}/*.JPEG nor {root}/CLASS/*.JPEG. If the images lie deeper, name "
            "the folder right above the class folders."
        )
    # Every folder is matched, also an empty one: a wrong root should be noticed.
    labels = list(range(len(folders))) if class_names is None else match_labels(folders, class_names)
    pairs = [pair for row in itertools.zip_longest(*(zip(f, itertools.repeat(k)) for f, k in zip(files, labels)))
             for pair in row if pair is not None]  # fmt: skip
    paths = pa.array((os.fsencode(path) for path, _ in pairs), pa.large_binary())
    return Listing(root, paths, np.fromiter((label for _, label in pairs), np.int64, len(pairs)))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; hidden ones are left out."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def match_labels(folders: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The index of the network's class that each folder stands for.

    A folder stands for the class of its own name, or, if the network's classes are ImageNet's, for the class of
    its WordNet id. The folders' positions never matter, so a part of the 1,000 folders is labelled rightly too.

    Raises:
        DataError: If a folder matches no class; shows folders and classes.

    Example:
        >>> match_labels(["n02123045", "tench"], imagenet_class_names())
        [281, 0]
    """
    table = label_table(class_names)
    if unknown := [folder for folder in folders if folder not in table]:
        raise DataError(
            f"{len(unknown)} of {len(folders)} class folders match no class of the network. Folders without a match: "
            f"{_some(unknown)}. Classes of the network: {_some(class_names)}. A folder should have a class's name"
            + (", or its WordNet id such as n02123045." if "n02123045" in table else ".")
        )
    return [table[folder] for folder in folders]


def label_table(class_names: Sequence[str]) -> dict[str, int]:
    """Class name -> index and, if the classes are ImageNet's, WordNet id -> index."""
    table = {name: index for index, name in enumerate(class_names)}
    if list(class_names) == imagenet_class_names():
        table |= {wnid: index for wnid, (index, _) in imagenet_classes().items()}
    return table


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def printable(path: str) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 are written as escapes (``\\xff``)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
