"""Tar shards in WebDataset's layout: files that share a name but for the extension are one sample."""

from __future__ import annotations

import bisect
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from braceexpand import braceexpand

from datamodules.classes import ClassTable
from datamodules.errors import DataError
from datamodules.reading.samples import SampleReader, printable
from datamodules.sources.files import holds_images
from datamodules.sources.listing import Listing, LoaderOptions, Share
from datamodules.sources.shard_files import DAMAGES, first_key, read_shard
from datamodules.sources.shard_loader import ShardDataset, ShardLoader
from datamodules.sources.shard_samples import folder_of, image_of, label_of

SUFFIXES = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class ShardListing(Listing):
    """The shards of a data set, whose samples nobody has counted.

    Attributes:
        shards: The files, in order.
        labels: Of the first sample: those of the others are known when they are read.
        done: Paths, as rows hold them, of the samples that have their rows already, sorted.
        repeats: Whether names begin anew in each shard, so that a sample is known by its shard's name too.
    """

    key: ClassVar[bytes] = b"shards"
    is_counted: ClassVar[bool] = False
    may_hold_boxes: ClassVar[bool] = True

    shards: tuple[str, ...]
    labels: np.ndarray
    done: pa.Array
    repeats: bool = False
    file: Path | None = None

    @classmethod
    def lies_at(cls, root: Path) -> bool:
        """Whether it is a tar file, a pattern of them, or a folder that holds tar files and no images."""
        if not root.is_dir():
            return str(root).endswith(SUFFIXES)
        return bool(_shards_in(root)) and not holds_images(root)

    @classmethod
    def found_at(cls, root: Path, class_names: Sequence[str] | None) -> ShardListing:
        return list_shards(root, class_names)

    def name(self, shard: int) -> str:
        """How rows call a shard: by its file's name or, if several have the same, by its path."""
        path = self.shards[shard]
        base = os.path.basename(path)
        return base if sum(os.path.basename(other) == base for other in self.shards) == 1 else path

    def without(self, done: Collection[str]) -> Self:
        return replace(self, done=pa.array(done, pa.large_string(), size=len(done)).sort())

    def is_done(self, path: str) -> bool:
        place = bisect.bisect_left(range(len(self.done)), path, key=lambda k: self.done[k].as_py())
        return place < len(self.done) and self.done[place].as_py() == path

    def loader(self, reader: SampleReader, share: Share, options: LoaderOptions) -> ShardLoader:
        return ShardLoader(ShardDataset(self, reader, share.rank, share.world), options)

    def fingerprint(self) -> dict[str, Any]:
        """The number of shards, and a hash of their names and sizes."""
        sizes = [[Path(shard).name, os.stat(shard).st_size] for shard in self.shards]
        return {"n_shards": len(sizes), "sha256": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()}

    def to_table(self) -> pa.Table:
        shards = json.dumps({"shards": self.shards, "labels": self.labels.tolist(), "repeats": self.repeats})
        return pa.table({"done": self.done}, metadata={self.key: shards})

    @classmethod
    def from_table(cls, table: pa.Table, file: Path) -> Self:
        found = json.loads(table.schema.metadata[cls.key])
        done = table["done"].combine_chunks()
        return cls(tuple(found["shards"]), np.array(found["labels"]), done, found["repeats"], file)


def _shards_in(root: Path) -> list[str]:
    return sorted(str(root / e.name) for e in os.scandir(root) if e.name.endswith(SUFFIXES) and e.name[0] != ".")


def list_shards(root: Path, class_names: Sequence[str] | None) -> ShardListing:
    """Finds the shards, and looks at the first sample of each.

    Args:
        root: A tar file, a pattern such as ``val-{0000..0049}.tar``, or a folder that holds tar files.
        class_names: Names of the network's classes, by which the samples are labelled.

    Raises:
        DataError: If a shard of the pattern does not exist, or the first shard is no tar archive, holds no samples, or
            is of other classes than the network.
    """
    if class_names is None:
        raise DataError(f"To read shards ({root}), class_names have to be known: they decide the labels.")
    shards = _shards_in(root) if root.is_dir() else list(braceexpand(str(root)))
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise DataError(f"{len(missing)} of {len(shards)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    labels = np.array([first_label(shards[0], ClassTable(class_names))])
    firsts = [key for key in map(first_key, shards) if key is not None]
    repeats = len(set(firsts)) < len(firsts)
    return ShardListing(tuple(shards), labels, pa.array([], pa.large_string()), repeats)


def first_label(shard: str, classes: ClassTable) -> int:
    """The label of a shard's first sample, -1 = it has none.

    Raises:
        DataError: If the shard cannot be read, holds nothing, or its first sample is of no class of the network.
    """
    try:
        sample = next(read_shard(shard), None)
    except DAMAGES as error:
        raise DataError(f"{shard} is no tar archive, or is damaged from the start: {error}") from error
    if sample is None:
        raise DataError(f"{shard} holds no samples.")
    path, _ = image_of(sample)
    try:
        return label_of(path, sample, classes)
    except ValueError as error:
        if "cls" not in sample:
            classes.of_folders([folder_of(path, classes)])  # which says more
        raise DataError(f"The first sample of {shard}, {printable(path)}: {error}.") from error
