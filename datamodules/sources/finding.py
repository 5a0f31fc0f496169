"""Which images lie in a folder, and of which class each is: by its folder, by a label file, or by its boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.errors import DataError
from datamodules.reading.samples import printable
from datamodules.sources.boxes import label_by_boxes, notes_of_boxes
from datamodules.sources.files import LeftOut, class_folders, each_name, images_below, loose_images
from datamodules.sources.label_files import LabelFile


class Found(NamedTuple):
    """The N images of a folder.

    Attributes:
        paths: Relative to the folder, as the file system's bytes.
        labels: Indices of their classes, long ``(N,)``; -1 = unlabelled.
        notes: What was left out or had to be decided, in sentences without their full stops.
    """

    paths: pa.Array
    labels: np.ndarray
    notes: list[str]


def find_images(root: Path, class_names: Sequence[str] | None, labels: LabelFile | None, boxes: Path | None) -> Found:
    """Looks for images to any depth, and for their classes.

    A label file, if there is one, says all of them. Otherwise images lie alone, unlabelled, or in class folders, the
    ones right below ``root``: named after a class or its WordNet id or, if all are numbers and none a class's name,
    its index. What is then unlabelled gets the class that its boxes name, if they name one.

    The order goes round the classes.

    Args:
        root: The folder.
        class_names: Names of the network's classes. None numbers the class folders, or the classes of the label file,
            in sorted order.
        labels: The label file.
        boxes: Folder of box annotations.

    Raises:
        DataError: If there are no images, images beside class folders, or classes that the network does not have.
    """
    table = None if class_names is None else ClassTable(class_names)
    left_out = LeftOut()
    found = _by_file(root, table, labels, left_out) if labels is not None else _by_folders(root, table, left_out)
    if boxes is not None and table is not None and (found.labels < 0).any():
        found.notes.extend(label_by_boxes(found.paths, found.labels, boxes, table))
    if boxes is not None:
        found.notes.extend(notes_of_boxes(found.paths, boxes, table))
    return found._replace(notes=[*left_out.notes(), *found.notes])


def _by_file(root: Path, table: ClassTable | None, labels: LabelFile, left_out: LeftOut) -> Found:
    paths = images_below(root, "", left_out)
    if not len(paths):
        raise DataError(f"{root} holds no images{left_out.as_clause()}.")
    names = [printable(name) for name in each_name(paths)]
    texts, notes = labels.of(names)
    if table is None:
        table = ClassTable(sorted({text for text in texts if text is not None}))
    indices = labels.indices(texts, table)
    notes += _note_of_numbers(labels.path, texts, indices, table)
    if others := _contradictions(names, indices, table):
        notes.append(
            f"{labels.path} and the class folders do not agree on {len(others):,} images, of which the file counts: "
            f"{', '.join(others[:3])}"
        )
    order = round_the_classes(indices)
    return Found(paths.take(pa.array(order)), indices[order], notes)


def _note_of_numbers(file: Path, texts: Sequence[str | None], indices: np.ndarray, table: ClassTable) -> list[str]:
    """What to say if a label file has numbers that are no names: it may count from 1, or have an order of its own."""
    labels = {text: label for text, label in zip(texts, indices.tolist()) if text is not None and text[0].isdigit()}
    numbers = {text: label for text, label in labels.items() if not table.is_named(text)}
    if not numbers:
        return []
    last = max(numbers, key=numbers.__getitem__)
    return [
        f"{file} numbers classes, which are read as indices of the network's classes, from 0 ({last} is "
        f"{table.names[numbers[last]]!r})"
    ]


def _contradictions(paths: Sequence[str], labels: np.ndarray, table: ClassTable) -> list[str]:
    """The images that lie in the folder of another class."""
    of_folder: dict[str, int | None] = {}
    for folder in {path.partition("/")[0] for path in paths if "/" in path}:
        with suppress(AmbiguousClassError):
            of_folder[folder] = table.named(folder)
    others = [of_folder.get(path.partition("/")[0]) for path in paths]
    return [path for path, label, other in zip(paths, labels.tolist(), others) if -1 < label != other is not None]


def _by_folders(root: Path, table: ClassTable | None, left_out: LeftOut) -> Found:
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
        return Found(loose, np.full(len(loose), -1), [])
    if not full:
        shards = " Name the folder of the shards, or a pattern of them." if left_out.no_images[".tar"] else ""
        raise DataError(
            f"{root} holds no images: neither {root}/*.JPEG nor {root}/CLASS/*.JPEG{left_out.as_clause()}.{shards}"
        )
    classes, notes = _classes_of(root, files, table, left_out)
    sizes = [len(files[folder]) for folder in classes]
    order = round_the_classes(np.repeat(np.arange(len(classes), dtype=np.int32), sizes))
    paths = pa.concat_arrays([files[folder] for folder in classes]).take(pa.array(order))
    return Found(paths, np.repeat(list(classes.values()), sizes)[order], notes)


def _classes_of(
    root: Path, files: Mapping[str, pa.Array], table: ClassTable | None, left_out: LeftOut
) -> tuple[dict[str, int], list[str]]:
    """The label of each class folder, and what has to be said of them."""
    if table is None:
        return {folder: index for index, folder in enumerate(files)}, []
    # An empty class folder is none the less one; a folder without images that is called otherwise is not.
    folders = [folder for folder, names in files.items() if len(names) or table.is_named(folder)]
    left_out.empty_folders += [printable(folder) for folder in files if folder not in folders]
    if all(folder.isascii() and folder.isdecimal() and not table.is_named(folder) for folder in folders):
        return _by_indices(root, folders, table)
    try:
        return dict(zip(folders, table.of_folders(folders))), []
    except DataError as error:
        for folder in folders:
            deeper = [name for name in class_folders(root / folder) if table.is_named(name)]
            if deeper and not table.is_named(folder):
                raise DataError(
                    f"{error} {root / folder} holds class folders ({deeper[0]}): is it the root?"
                ) from error
        raise


def _by_indices(root: Path, folders: Sequence[str], table: ClassTable) -> tuple[dict[str, int], list[str]]:
    """The labels of folders that are called by numbers, as those of ImageNetV2 are."""
    if beyond := [folder for folder in folders if int(folder) >= len(table)]:
        raise DataError(
            f"The class folders of {root} are called by numbers, and {beyond[0]} is no index of the network's classes, "
            f"which are 0 to {len(table) - 1}."
        )
    try:
        # Not int alone: 1 may be meant for a class that is called 01, as this refuses.
        labels = {folder: table.index(folder) for folder in sorted(folders, key=int)}
    except AmbiguousClassError as error:
        raise DataError(f"A class folder's name fits several classes: {error}") from error
    last = next(reversed(labels))
    return labels, [
        f"its class folders are called by numbers, which are read as indices of the network's classes ({last} is "
        f"{table.names[labels[last]]!r}); where the network has such folders in the order of text (0, 1, 10, ...), "
        "model.class_names says so"
    ]


def round_the_classes(groups: np.ndarray) -> np.ndarray:
    """The order that takes the first of each group, then the second of each, and so on."""
    groups = np.unique(groups, return_inverse=True)[1].astype(np.int32) if (groups < 0).any() else groups
    by_group = np.argsort(groups, kind="stable").astype(np.int32)
    place = np.empty(len(groups), np.int32)
    place[by_group] = np.concatenate([np.arange(n, dtype=np.int32) for n in np.bincount(groups) if n])
    del by_group
    return np.lexsort((groups, place))
