"""Decoded shards: images as a network sees them, in files that are mapped into memory. Nothing is decoded any more."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from braceexpand import braceexpand

from datamodules.classes import ClassTable
from datamodules.errors import DataError
from datamodules.reading.annotations import find_annotation
from datamodules.reading.samples import Failure, Sample, SampleReader
from datamodules.reading.seen_boxes import seen_boxes
from datamodules.sources.boxes import classes_named
from datamodules.sources.counted import CountedListing, NumberedImages
from datamodules.sources.decoded_files import SUFFIX, Making, OpenShard, checked_together, decoded_shards_in
from datamodules.sources.files import holds_images
from datamodules.sources.label_files import label_written
from datamodules.sources.wishes import Wishes


@dataclass(frozen=True, kw_only=True)
class DecodedListing(CountedListing):
    """The images of decoded shards.

    Attributes:
        numbers: Of each image its place among the rows of all shards, long ``(N,)``.
        shards: The files, in order.
        starts: The place of each shard's first row.
        making: How the pixels were made.
        sha256: Of all that the shards hold.
    """

    key: ClassVar[bytes] = b"decoded"
    may_hold_boxes: ClassVar[bool] = True

    numbers: np.ndarray
    shards: tuple[str, ...]
    starts: tuple[int, ...]
    making: Making
    sha256: str

    @classmethod
    def lies_at(cls, root: Path) -> bool:
        """Whether it is a decoded shard, a pattern of them, or a folder that holds some and no images."""
        if not root.is_dir():
            return str(root).endswith(SUFFIX)
        return bool(decoded_shards_in(root)) and not holds_images(root)

    @classmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> DecodedListing:
        return list_decoded(root, class_names)

    @classmethod
    def wished_at(cls, root: Path, class_names: Sequence[str] | None, wishes: Wishes) -> DecodedListing:
        cls.refuse_labels(root, wishes)
        return list_decoded(root, class_names).part(wishes.subset)

    def check(self, reader: SampleReader) -> None:
        wanted = Making.by(reader.preprocess, reader.exif_orientation)
        if wanted != self.making:
            raise DataError(
                f"{self.root} holds images {self.making}, and the network is to see them {wanted}: pack them for it "
                "(pack_shards.py --decoded), or read the original images."
            )

    def take(self, indices: np.ndarray) -> Self:
        return replace(super().take(indices), numbers=self.numbers[indices])

    def dataset(self, reader: SampleReader) -> DecodedDataset:
        self.check(reader)
        return DecodedDataset(self, reader)

    def place(self, index: int) -> tuple[str, int]:
        """The shard of an image, and its row there."""
        number = int(self.numbers[index])
        shard = bisect.bisect_right(self.starts, number) - 1
        return self.shards[shard], number - self.starts[shard]

    def fingerprint(self) -> dict[str, Any]:
        """How many images, a hash of paths and labels, and one of all that the shards hold."""
        return {**self.names_fingerprint(), "content_sha256": self.sha256}

    def to_table(self) -> pa.Table:
        columns = {"path": self.paths, "label": self.labels, "done": self.done, "number": self.numbers}
        facts = {
            "root": str(self.root),
            "shards": self.shards,
            "starts": self.starts,
            "making": vars(self.making),
            "sha256": self.sha256,
        }
        return pa.table(columns, metadata={self.key: json.dumps(facts)})

    @classmethod
    def from_table(cls, table: pa.Table, file: Path) -> Self:
        found = json.loads(table.schema.metadata[cls.key])
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        return cls(
            Path(found["root"]),
            columns["path"],
            columns["label"].to_numpy(),
            columns["done"].to_numpy(zero_copy_only=False),
            file,
            numbers=columns["number"].to_numpy(),
            shards=tuple(found["shards"]),
            starts=tuple(found["starts"]),
            making=Making(**found["making"]),
            sha256=found["sha256"],
        )


class DecodedDataset(NumberedImages):
    """The images of decoded shards, each copied out of the file when it is asked for."""

    listing: DecodedListing

    def __init__(self, listing: DecodedListing, reader: SampleReader) -> None:
        super().__init__(listing, reader)
        # A shard that is open costs addresses alone, and no open file.
        self._opened: dict[str, OpenShard] = {}

    def __getitem__(self, index: int) -> Sample | Failure:
        shard, row = self.listing.place(index)
        reader = self.reader
        if shard not in self._opened:
            self._opened[shard] = OpenShard(shard)
        seen = self._opened[shard].look(row, with_original=index < reader.n_originals)
        if "failed" in seen:
            return seen
        if seen["boxes"] is None and (file := find_annotation(reader.boxes, seen["path"])) is not None:
            how = seen["size"], seen["orientation"], seen["is_turned"]
            seen["boxes"] = seen_boxes(reader.preprocess, file, None, *how)
        return reader.sample(seen, int(self.listing.labels[index]), index)


def list_decoded(root: Path, class_names: Sequence[str] | None) -> DecodedListing:
    """Lists the images of decoded shards, in the order in which they were packed.

    Args:
        root: A folder that holds all shards that were packed together, one of them, or a pattern such as
            ``{00000..00049}.decoded.arrow``.
        class_names: Names of the network's classes, by which the images are labelled.

    Raises:
        DataError: If a shard is missing or cannot be used, or a class is none of the network.
    """
    if class_names is None:
        raise DataError(f"To read shards ({root}), class_names have to be known: they decide the labels.")
    shards = decoded_shards_in(root) if root.is_dir() else list(braceexpand(str(root)))
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise DataError(f"{len(missing)} of {len(shards)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    opened = checked_together(shards)
    facts = opened[0].facts
    if root.is_dir() and len(opened) != facts.n_shards:
        raise DataError(f"{root} holds {len(opened)} of the {facts.n_shards} shards that were packed together.")
    sizes = [len(shard) for shard in opened]
    names = {
        name: pa.concat_arrays([shard.columns[name] for shard in opened]) for name in ("path", "class", "box_names")
    }
    n = sum(sizes)
    return DecodedListing(
        root,
        names["path"].cast(pa.large_string()).cast(pa.large_binary()),
        _labels(root, names, ClassTable(class_names)),
        np.zeros(n, bool),
        numbers=np.arange(n),
        shards=tuple(shards),
        starts=(0, *np.cumsum(sizes)[:-1].tolist()),
        making=facts.making,
        sha256=hashlib.sha256(" ".join(shard.facts.sha256 for shard in opened).encode()).hexdigest(),
    )


def _labels(root: Path, names: dict[str, pa.Array], table: ClassTable) -> np.ndarray:
    """The label of each image: of the class that was packed with it, else of its folder, else of its boxes."""
    paths, classes = names["path"], names["class"]
    is_loose = pc.invert(pc.match_substring(paths, "/"))
    folders = pc.replace_substring_regex(paths, pattern="(?s)/.*", replacement="")
    folders = pc.if_else(pc.or_(is_loose, classes.is_valid()), None, folders)
    # Few of each: a million paths as Python objects would take a hundred megabytes.
    labels = _looked_up(folders, table.of_folders)
    of_text = _looked_up(classes, lambda texts: [_label_written(root, text, table) for text in texts])
    labels = np.where(classes.is_valid(), of_text, labels)
    for k in np.flatnonzero(pc.and_(is_loose, classes.is_null())).tolist():
        found = classes_named(names["box_names"][k].as_py() or (), table)
        labels[k] = found.pop() if len(found) == 1 else -1
    return labels


def _looked_up(texts: pa.Array, labels_of: Callable[[list[str]], list[int]]) -> np.ndarray:
    """The label of each text, long ``(N,)``; -1 = there is no text."""
    encoded = texts.dictionary_encode()
    labels = np.array([*labels_of(encoded.dictionary.to_pylist()), -1])
    return labels[encoded.indices.fill_null(-1).to_numpy()]


def _label_written(root: Path, text: str, table: ClassTable) -> int:
    try:
        return label_written("a class that was packed with them", text, table)
    except ValueError as error:
        raise DataError(f"Images in the shards of {root} cannot be labelled: {str(error).rstrip('.')}.") from error
