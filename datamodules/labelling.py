"""The one rule by which every image gets its class: a label file, what lies with it, its folder, its boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from datamodules.boxes import label_by_boxes, notes_of_boxes
from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.errors import DataError, printable
from datamodules.labels import LabelFile, label_written
from datamodules.source import ListingOptions


class Labels(NamedTuple):
    """The classes of N images.

    Attributes:
        labels: Their indices, long ``(N,)``; -1 = unlabelled.
        errors: What is wrong with the class of an image, by the number of the image.
        notes: What was decided, in sentences without their full stops.
    """

    labels: np.ndarray
    errors: dict[int, str]
    notes: list[str]


class ClassFolders(NamedTuple):
    """The folders that N images are labelled by.

    Attributes:
        names: Of the folders, each once.
        codes: Of each image the number of its folder, ``(N,)``; -1 = it lies in none.
    """

    names: Sequence[str]
    codes: np.ndarray

    def where(self, counts: np.ndarray) -> ClassFolders:
        """The folders of those images alone that count, bool ``(N,)``; the others lie in none."""
        used, codes = np.unique(np.where(counts, self.codes, -1), return_inverse=True)
        n_none = int(len(used) > 0 and used[0] < 0)
        return ClassFolders([self.names[k] for k in used[n_none:].tolist()], codes - n_none)


def label_images(
    root: Path,
    options: ListingOptions,
    paths: Sequence[str],
    folders: ClassFolders,
    texts: pa.Array | None = None,
    box_names: Callable[[int], Iterable[str] | None] | None = None,
    *,
    is_lenient: bool = False,
) -> Labels:
    """Labels N images by the first of these that there is: the label file, a text, the class folder, the boxes.

    Args:
        root: Where they lie, for messages.
        options: The network's classes, and the label file.
        paths: Of the images, relative to ``root``; see :class:`~datamodules.source.Paths`.
        folders: The folders that give their classes, where nothing else does.
        texts: What lies with each image as its class, a string; "" = unlabelled whatever its folder; null = nothing.
        box_names: What the boxes of the image of a number are named after; None = it has none.
        is_lenient: Whether an image of no class of the network is an error of its own, as long as others are of some.

    Raises:
        DataError: If there are classes that the network does not have.
    """
    table = None if options.class_names is None else ClassTable(options.class_names)
    errors: dict[int, str] = {}
    if options.labels is not None:
        labels, notes = _by_file(options.labels, table, paths, folders)
    else:
        if texts is not None:
            folders = folders.where(texts.is_null().to_numpy(zero_copy_only=False))
        by_folder, notes = _by_folder(root, folders.names, table, is_lenient)
        labels, errors = _with_texts(folders.codes, by_folder, texts, table)
    if errors and (not is_lenient or len(errors) == len(labels)):
        first = min(errors)
        raise DataError(f"{root} cannot be labelled: of {paths[first]}, {errors[first].rstrip('.')}.")
    if table is not None and box_names is not None and (labels < 0).any():
        notes += label_by_boxes(labels, box_names, paths.__getitem__, table)
    if options.boxes is not None:
        notes += notes_of_boxes(paths, options.boxes, table)
    return Labels(labels, errors, notes)


def _by_file(
    file: LabelFile, table: ClassTable | None, paths: Sequence[str], folders: ClassFolders
) -> tuple[np.ndarray, list[str]]:
    names = [printable(path) for path in paths]
    texts, notes = file.of(names)
    if table is None:
        table = ClassTable(sorted({text for text in texts if text is not None}))
    labels = file.indices(texts, table)
    notes += _note_of_numbers(file.path, texts, labels, table)
    of_folder: list[int] = []
    for folder in folders.names:
        with suppress(AmbiguousClassError):
            of_folder.append(-1 if (label := table.named(folder)) is None else label)
            continue
        of_folder.append(-1)
    others = np.array([*of_folder, -1])[folders.codes]
    if differing := np.flatnonzero((labels >= 0) & (others >= 0) & (labels != others)).tolist():
        notes.append(
            f"{file.path} and the class folders do not agree on {len(differing):,} images, of which the file counts: "
            f"{', '.join(names[k] for k in differing[:3])}"
        )
    return labels, notes


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


def _by_folder(
    root: Path, names: Sequence[str], table: ClassTable | None, is_lenient: bool
) -> tuple[list[int | str], list[str]]:
    """Of each folder its class or what is wrong with it; and what was decided."""
    if table is None:
        return [*range(len(names))], []
    if names and all(name.isascii() and name.isdecimal() and not table.is_named(name) for name in names):
        return _by_indices(root, names, table)
    if not is_lenient or not any(map(table.is_named, names)):
        return [*table.of_folders(names)], []
    found: list[int | str] = []
    for name in names:
        try:
            label = table.named(name)
            no_class = f"its folder is {printable(name)!r}, which is no class of the network"
            found.append(no_class if label is None else label)
        except AmbiguousClassError as error:
            found.append(f"its folder: {error}")
    return found, []


def _by_indices(root: Path, names: Sequence[str], table: ClassTable) -> tuple[list[int | str], list[str]]:
    """The labels of folders that are called by numbers, as those of ImageNetV2 are."""
    if beyond := [name for name in names if int(name) >= len(table)]:
        raise DataError(
            f"The class folders of {root} are called by numbers, and {beyond[0]} is no index of the network's classes, "
            f"which are 0 to {len(table) - 1}."
        )
    try:
        # Not int alone: 1 may be meant for a class that is called 01, as this refuses.
        labels = [table.index(name) for name in names]
    except AmbiguousClassError as error:
        raise DataError(f"A class folder's name fits several classes: {error}") from error
    last = max(names, key=int)
    return [*labels], [
        f"its class folders are called by numbers, which are read as indices of the network's classes ({last} is "
        f"{table.names[table.index(last)]!r}); where the network has such folders in the order of text (0, 1, 10, "
        "...), model.class_names says so"
    ]


def _with_texts(
    codes: np.ndarray, by_folder: Sequence[int | str], texts: pa.Array | None, table: ClassTable | None
) -> tuple[np.ndarray, dict[int, str]]:
    """The labels of images by their texts and, where there is none, by their folders; and what is wrong."""
    found = [*by_folder]
    if texts is not None and table is not None:
        encoded = texts.dictionary_encode()
        for text in encoded.dictionary.to_pylist():
            try:
                found.append(label_written("its .cls", text.strip(), table))
            except ValueError as error:
                found.append(str(error))
        of_text = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        codes = np.where(of_text >= 0, of_text + len(by_folder), codes)
    labels = np.array([each if isinstance(each, int) else -1 for each in found] + [-1], np.int64)[codes]
    is_wrong = np.array([isinstance(each, str) for each in found] + [False])[codes]
    return labels, {k: str(found[codes[k]]) for k in np.flatnonzero(is_wrong).tolist()}
