"""Folders of images, to any depth, labelled by the folders right below the root or by a file of labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.boxes import find_annotation, names_of_boxes
from datamodules.classes import ClassTable
from datamodules.errors import DataError, printable
from datamodules.labelling import are_indices, label_images, sort_folders
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.remote import is_address, no_folder
from datamodules.source import ListingOptions, Source, names_of, path_at, round_the_classes
from datamodules.walk import LeftOut, class_folders, images_below

_SIZES = 1000


class FolderSource(Source):
    """The images of a folder.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.
    """

    kind = "folder"

    @classmethod
    def matches(cls, root: Path | str) -> bool:
        return True

    @classmethod
    def list_images(cls, root: Path | str, options: ListingOptions) -> Self:
        root = Path(root)
        if not root.is_dir():
            raise DataError(f"The image folder {root} {'is not a folder' if root.exists() else 'does not exist'}.")
        left_out = LeftOut()
        paths = images_below(root, left_out)
        folders = top_folders(paths)
        _check(root, paths, folders, options, left_out)
        boxes = options.boxes
        labels, _, notes = label_images(
            root,
            options,
            paths,
            folders,
            box_names=None
            if boxes is None
            else lambda numbers: (names_of_boxes(find_annotation(boxes, path_at(paths, i))) for i in numbers),
        )
        groups = labels
        if options.labels is None and not folders.null_count:
            places = pa.array(sort_folders(folders.unique().to_pylist()))
            groups = pc.index_in(folders, places).to_numpy()
        if groups.min() < groups.max():
            order = round_the_classes(groups)
            paths, labels = paths.take(pa.array(order)), labels[order]
        return cls.make(paths, labels, {"root": str(root)}, [*left_out.notes(), *notes])

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
        spread = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SIZES)).astype(int))
        files = [self.root / self.path(k) for k in spread.tolist()]
        # A dangling link is listed too.
        sizes = json.dumps([file.stat().st_size if file.exists() else None for file in files])
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
    if is_address(root):
        raise no_folder(str(root))
    return FolderSource.open(Path(root).expanduser(), ListingOptions(class_names, **options))


def top_folders(paths: pa.Array) -> pa.Array:
    """The folder right below the root that each image lies in; null = it lies in none."""
    names = names_of(paths)
    return pc.if_else(pc.match_substring(names, "/"), pc.replace_substring_regex(names, "(?s)/.*", ""), None)


def _check(root: Path, paths: pa.Array, folders: pa.Array, options: ListingOptions, left_out: LeftOut) -> None:
    """Refuses what holds no images, images of no class beside class folders, and a root that is one too high."""
    if not len(paths):
        has_shards = ".tar" in left_out.names.get("files are no images", ())
        shards = " Name the folder of the shards, or a pattern of them." * has_shards
        raise DataError(
            f"{root} holds no images: neither {root}/*.JPEG nor {root}/CLASS/*.JPEG{left_out.as_clause()}.{shards}"
        )
    full = sort_folders(folders.unique().drop_null().to_pylist())
    if options.labels is not None or not full:
        return
    if folders.null_count:
        loose = names_of(paths).filter(folders.is_null())[0]
        raise DataError(
            f"{root} holds images ({loose}, ...) beside folders ({full[0]}, ...) of images. It should hold either one "
            "folder for each class, or images alone, or come with a file of labels: data.labels."
        )
    if options.class_names is None:
        return
    table = ClassTable(options.class_names)
    is_one = are_indices(full, table) or any(map(table.is_named, full))
    for folder in class_folders(root):
        if printable(folder) not in full and not table.is_named(folder):
            left_out.add("folders without images, called after no class", folder)
        elif not is_one and (deeper := [*filter(table.is_named, class_folders(root / folder))]):
            raise DataError(
                f"{len(full)} of {len(full)} class folders match no class of the network, but {root / folder} holds "
                f"class folders ({deeper[0]}): is it the root?"
            )
