"""What one sample of a shard says of its image: path, label, boxes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datamodules.classes import AmbiguousClassError, ClassTable
from datamodules.reading.formats import image_extensions, is_raw, remedy
from datamodules.reading.samples import Failure, Sample, SampleReader, failed, printable
from datamodules.sources.boxes import classes_of_boxes
from datamodules.sources.label_files import label_written


def image_of(sample: dict[str, Any]) -> tuple[str, str | None]:
    """The path of a sample, and the name under which it holds its image, None if there is not exactly one."""
    images = [name for name in sample if f".{name.lower()}" in image_extensions()]
    image = images[0] if len(images) == 1 else None
    if "path" in sample:
        return os.fsdecode(sample["path"]), image
    return sample["__key__"] + (f".{image}" if image else ""), image


def folder_of(path: str, classes: ClassTable) -> str:
    """The name of the folder that says the class of an image: of those it lies in the nearest that is called after one.

    If none is, the nearest of all; empty if it lies in none.
    """
    folders = [printable(name) for name in reversed(Path(path).parent.parts)]
    return next((name for name in folders if classes.is_named(name)), folders[0] if folders else "")


def label_of(path: str, sample: dict[str, Any], classes: ClassTable) -> int:
    """The class in a sample's ``.cls`` or, if there is none, that of its folder or, without one, of its boxes.

    -1 = it has none of them, an empty ``.cls``, or boxes of several classes.

    Raises:
        ValueError: If there is no such class, or several.
    """
    if "cls" in sample:
        return label_written("its .cls", printable(sample["cls"]).strip(), classes)
    folder = folder_of(path, classes)
    if not folder:
        boxed = classes_of_boxes(Path(path), sample.get("xml", b""), classes)
        return boxed.pop() if len(boxed) == 1 else -1
    try:
        label = classes.named(folder)
    except AmbiguousClassError as error:
        raise ValueError(f"its folder: {error}") from error
    if label is None:
        raise ValueError(f"its folder is {folder!r}, which is no class of the network")
    return label


def read_sample(sample: dict[str, Any], row: str, index: int, reader: SampleReader) -> Sample | Failure:
    """The image of a sample, which the rows call ``row``; see :class:`SampleReader` for the rest."""
    path, image = image_of(sample)
    if image is None:
        held = sorted(name for name in sample if not name.startswith("__"))
        return failed(row, f"a sample should hold one image; this one holds {', '.join(held)}")
    if is_raw(f"x.{image}"):
        return failed(row, str(remedy(f"x.{image}")))
    if any(content is None for content in sample.values()):
        return failed(row, "a link; shards hold the files themselves")
    try:
        label = label_of(path, sample, reader.classes)
    except ValueError as error:
        return failed(row, str(error))
    return reader.read(sample[image], row, label, index, sample.get("xml"))
