"""Folders of images, to any depth, labelled by the folders right below the root or by a file of labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from datamodules.boxes import find_annotation, names_of_boxes
from datamodules.classes import ClassTable
from datamodules.errors import DataError, printable
from datamodules.labelling import ClassFolders, label_images
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.source import ListingOptions, Paths, Source, round_the_classes
from datamodules.walk import LeftOut, class_folders, images_below, loose_images

_SIZES = 1000


class FolderSource(Source):
    """The images of a folder.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.
    """

    kind = "folder"

    @classmethod
    def matches(cls, root: Path) -> bool:
        return True

    @classmethod
    def list_images(cls, root: Path, options: ListingOptions) -> Self:
        if not root.is_dir():
            raise DataError(f"The image folder {root} {'is not a folder' if root.exists() else 'does not exist'}.")
        left_out = LeftOut()
        if options.labels is not None:
            paths, folders = _everything(root, left_out)
        else:
            paths, folders = _by_class(root, options, left_out)
        boxes = options.boxes
        found = Paths(paths)
        labelled = label_images(
            root,
            options,
            found,
            folders,
            box_names=None if boxes is None else lambda i: names_of_boxes(find_annotation(boxes, found[i])),
        )
        groups = folders.codes if options.labels is None and folders.names else labelled.labels
        labels = labelled.labels
        if groups.min() < groups.max():
            order = round_the_classes(groups)
            paths, labels = paths.take(pa.array(order)), labels[order]
        return cls.make(paths, labels, {"root": str(root)}, [*left_out.notes(), *labelled.notes])

    @property
    def root(self) -> Path:
        return Path(self.facts["root"])

    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        path = self.path(i)
        return reader.read(self.root / path, path, int(self.labels[i]), i)

    def content_fingerprint(self) -> dict[str, Any]:
        """A hash of the sizes of a thousand files, spread over all.

        Files that were written anew under their old names are noticed, and a file system with a million of them is not
        asked about each.
        """
        some = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SIZES)).astype(int))
        sizes = json.dumps([_size(self.root / self.path(k)) for k in some.tolist()])
        return {"sizes_sha256": hashlib.sha256(sizes.encode()).hexdigest()}


def list_folder(root: str | Path, class_names: Sequence[str] | None = None, **options: Any) -> FolderSource:
    """Lists the images of a folder, to any depth.

    A label file, if there is one, gives all their classes. Otherwise images lie alone, unlabelled, or in class folders,
    the ones right below ``root``: named after a class or its WordNet id or, if all are numbers and none a class's name,
    its index. What is then unlabelled gets the class that its boxes name, if they name one.

    Args:
        root: The folder.
        class_names: Names of the network's classes. None numbers the classes in sorted order.
        options: Further ones of :class:`~datamodules.source.ListingOptions`.

    Raises:
        DataError: If the folder does not exist, holds no images, holds images beside class folders, or a class is none
            of the network; or if the options do not fit.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dog", "cat"):
        ...         Path(folder, name).mkdir()
        ...         Path(folder, name, "a.jpg").touch()
        ...     source = list_folder(folder, ["dog", "bird", "cat"])
        >>> [(source.path(k), int(source.labels[k])) for k in range(2)]
        [('cat/a.jpg', 2), ('dog/a.jpg', 0)]
    """
    return FolderSource.open(Path(root).expanduser(), ListingOptions(class_names, **options))


def _everything(root: Path, left_out: LeftOut) -> tuple[pa.Array, ClassFolders]:
    """All images, and the folders right below the root that they lie in."""
    paths = images_below(root, "", left_out)
    if not len(paths):
        raise DataError(f"{root} holds no images{left_out.as_clause()}.")
    numbers: dict[str, int] = {}
    codes = [
        numbers.setdefault(path.partition("/")[0], len(numbers)) if "/" in path else -1
        for path in map(printable, Paths(paths))
    ]
    return paths, ClassFolders([*numbers], np.array(codes))


def _by_class(root: Path, options: ListingOptions, left_out: LeftOut) -> tuple[pa.Array, ClassFolders]:
    """All images, and their class folders; none if they lie in the root itself."""
    loose = loose_images(root, left_out)
    files = {folder: images_below(root, folder, left_out) for folder in class_folders(root)}
    full = [folder for folder, names in files.items() if len(names)]
    if len(loose) and full:
        raise DataError(
            f"{root} holds images ({printable(loose[0].as_py())}, ...) beside folders ({printable(full[0])}, ...) of "
            "images. It should hold either one folder for each class, or images alone, or come with a file of labels: "
            "data.labels."
        )
    if len(loose):
        return loose, ClassFolders([], np.full(len(loose), -1, np.int32))
    if not full:
        shards = " Name the folder of the shards, or a pattern of them." if left_out.no_images[".tar"] else ""
        raise DataError(
            f"{root} holds no images: neither {root}/*.JPEG nor {root}/CLASS/*.JPEG{left_out.as_clause()}.{shards}"
        )
    if options.class_names is not None:
        files = _named_or_full(root, files, ClassTable(options.class_names), left_out)
    sizes = [len(names) for names in files.values()]
    codes = np.repeat(np.arange(len(files), dtype=np.int32), sizes)
    return pa.concat_arrays([*files.values()]), ClassFolders([*files], codes)


def _named_or_full(
    root: Path, files: Mapping[str, pa.Array], table: ClassTable, left_out: LeftOut
) -> dict[str, pa.Array]:
    """The folders that count: an empty one is a class folder if it is called after a class."""
    counting = {folder: names for folder, names in files.items() if len(names) or table.is_named(folder)}
    left_out.empty_folders += [printable(folder) for folder in files if folder not in counting]
    if all(folder.isascii() and folder.isdecimal() and not table.is_named(folder) for folder in counting):
        return {folder: counting[folder] for folder in sorted(counting, key=int)}
    if not any(map(table.is_named, counting)):
        for folder in counting:
            if deeper := [name for name in class_folders(root / folder) if table.is_named(name)]:
                raise DataError(
                    f"{len(counting)} of {len(counting)} class folders match no class of the network, but "
                    f"{root / folder} holds class folders ({deeper[0]}): is it the root?"
                )
    return counting


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link is listed too
        return None
