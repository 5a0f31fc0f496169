"""The one rule by which every image gets its class: a label file, what lies with it, its folder, its boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.boxes import classes_named, notes_of_boxes
from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError
from datamodules.errors import DataError, some
from datamodules.labels import LabelFile, index_written
from datamodules.source import ListingOptions, names_of, path_at


def label_images(
    root: Path | str,
    options: ListingOptions,
    paths: pa.Array,
    folders: pa.Array,
    texts: pa.Array | None = None,
    box_names: Callable[[Sequence[int]], Iterable[Iterable[str] | None]] | None = None,
    *,
    is_lenient: bool = False,
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Labels N images by the first of these that there is: the label file, a text, the class folder, the boxes.

    Args:
        root: Where they lie, for messages.
        options: The network's classes, and the label file.
        paths: Of the images, relative to ``root``, as bytes.
        folders: The folder that gives each its class, where nothing else does; null = none.
        texts: What lies with each image as its class, a string; "" = unlabelled whatever its folder; null = nothing.
        box_names: What the boxes of images of these numbers are named after; None = an image has none.
        is_lenient: Whether an image of no class of the network is an error of its own, as long as others are of some.

    Returns:
        The indices of their classes, long ``(N,)``, -1 = unlabelled; what is wrong with the class of an image, by the
        number of the image; and what was decided, in sentences without their full stops.

    Raises:
        DataError: If there are classes that the network does not have.
    """
    table = None if options.class_names is None else ClassTable(options.class_names)
    errors: dict[int, str] = {}
    notes: list[str] = []
    if options.labels is not None:
        labels = _by_file(options.labels, table, names_of(paths), folders, notes)
    else:
        if texts is not None:
            folders = pc.if_else(texts.is_null(), folders, None)
        labels, errors = _labels_of(folders, lambda names: _by_folder(root, names, table, is_lenient, notes))
        if texts is not None and table is not None:
            look_up = partial(index_written, table=table)
            by_text, wrong = _labels_of(
                pc.utf8_trim_whitespace(texts),
                lambda texts: [_class_or_error("its .cls", text, look_up) if text else -1 for text in texts],
            )
            labels, errors = np.where(texts.is_valid(), by_text, labels), errors | wrong
    if errors and (not is_lenient or len(errors) == len(labels)):
        first = min(errors)
        raise DataError(f"{root} cannot be labelled: of {path_at(paths, first)}, {errors[first].rstrip('.')}.")
    if table is not None and box_names is not None:
        _label_by_boxes(labels, box_names, paths, table, notes)
    if options.boxes is not None:
        notes += notes_of_boxes(paths, options.boxes, table)
    return labels, errors, notes


def _labels_of(
    texts: pa.Array, classify: Callable[[Sequence[str]], Sequence[int | str]]
) -> tuple[np.ndarray, dict[int, str]]:
    """The labels of images by a text of each, -1 = null; and what is wrong, where it has no label but a message."""
    encoded = texts.dictionary_encode()
    found = [*classify(encoded.dictionary.to_pylist()), -1]
    codes = encoded.indices.fill_null(len(found) - 1).to_numpy()
    labels = np.array([-1 if isinstance(each, str) else each for each in found], np.int64)[codes]
    is_wrong = np.array([isinstance(each, str) for each in found])[codes]
    return labels, {k: str(found[codes[k]]) for k in np.flatnonzero(is_wrong).tolist()}


def _by_file(
    file: LabelFile, table: ClassTable | None, names: pa.Array, folders: pa.Array, notes: list[str]
) -> np.ndarray:
    texts, found = file.match(names)
    notes += found
    known = texts.unique().drop_null().to_pylist()
    table = ClassTable(sorted(known)) if table is None else table
    indices = file.indices(known, table)
    labels, _ = _labels_of(texts, lambda texts: [indices[text] for text in texts])
    # Numbers that are no names may count from 1, or have an order of their own.
    if numbers := [text for text in known if text[0].isdigit() and not table.is_named(text)]:
        last = max(numbers, key=indices.__getitem__)
        notes.append(
            f"{file.path} numbers classes, which are read as indices of the network's classes, from 0 ({last} is "
            f"{table.names[indices[last]]!r})"
        )
    others, _ = _labels_of(folders, lambda names: [_only(classes_named([name], table)) for name in names])
    if len(differing := np.flatnonzero((labels >= 0) & (others >= 0) & (labels != others))):
        notes.append(
            f"{file.path} and the class folders do not agree on {len(differing):,} images, of which the file counts: "
            f"{some(names.take(differing[:4]).to_pylist())}"
        )
    return labels


def _by_folder(
    root: Path | str, names: Sequence[str], table: ClassTable | None, is_lenient: bool, notes: list[str]
) -> Sequence[int | str]:
    """Of each folder its class or what is wrong with it."""
    if table is None:
        order = sort_folders(names)
        return [order.index(name) for name in names]
    if are_indices(names, table):
        last = max(names, key=int)
        if int(last) >= len(table):
            raise DataError(
                f"The class folders of {root} are called by numbers, and {last} is no index of the network's classes, "
                f"which are 0 to {len(table) - 1}."
            )
        try:
            # Not int alone: 1 may be meant for a class that is called 01, as this refuses.
            labels = [table.index(name) for name in names]
        except AmbiguousClassError as error:
            raise DataError(f"A class folder's name fits several classes: {error}") from error
        notes.append(
            "its class folders are called by numbers, which are read as indices of the network's classes "
            f"({last} is {table.names[table.index(last)]!r}); where the network has such folders in the order of text "
            "(0, 1, 10, ...), model.class_names says so"
        )
        return labels
    if not is_lenient or not any(map(table.is_named, names)):
        return table.of_folders(names)
    return [_class_or_error("its folder", name, table.named) for name in names]


def are_indices(names: Sequence[str], table: ClassTable) -> bool:
    """Whether folders of these names stand for indices of classes."""
    return bool(names) and all(name.isascii() and name.isdecimal() and not table.is_named(name) for name in names)


def sort_folders(names: Sequence[str]) -> list[str]:
    """Class folders in order: of numbers, if all are such, else of text."""
    are_numbers = all(name.isascii() and name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if are_numbers else 0, name))


def _class_or_error(what: str, text: str, look_up: Callable[[str], int | None]) -> int | str:
    """The class of a text that lies with an image, or what is wrong with it."""
    try:
        label = look_up(text)
    except UnknownClassError:
        label = None
    except AmbiguousClassError as error:
        return f"{what}: {error}"
    return f"{what} is {text!r}, which is no class of the network" if label is None else label


def _only(classes: set[int]) -> int:
    return classes.pop() if len(classes) == 1 else -1


def _label_by_boxes(
    labels: np.ndarray,
    box_names: Callable[[Sequence[int]], Iterable[Iterable[str] | None]],
    paths: pa.Array,
    table: ClassTable,
    notes: list[str],
) -> None:
    """Labels, in place, what is unlabelled and has boxes of one class."""
    unlabelled = np.flatnonzero(labels < 0).tolist()
    classes = {k: classes_named(names or (), table) for k, names in zip(unlabelled, box_names(unlabelled))}
    for k, found in classes.items():
        labels[k] = _only({*found})
    if n := int((labels[unlabelled] >= 0).sum()):
        notes.append(f"{n:,} images are labelled by the class that their boxes name")
    if several := [path_at(paths, k) for k, found in classes.items() if len(found) > 1]:
        notes.append(f"{len(several):,} images have boxes of several classes, so no label: {some(several)}")
