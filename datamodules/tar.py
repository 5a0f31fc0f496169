"""Tar shards in WebDataset's layout: files that share a name up to its first dot are one sample."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from braceexpand import braceexpand

from datamodules.ahead import Ahead
from datamodules.boxes import names_of_boxes
from datamodules.classes import ClassTable
from datamodules.errors import DataError, printable
from datamodules.labelling import label_images
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.remote import AT_ONCE, StoredFile, is_address, matching, no_folder, path_of, stored_file
from datamodules.source import ListingOptions, Source, names_of, path_at, require_classes
from datamodules.tar_index import PACKED, SCHEMA, index_shards, shards_in
from datamodules.walk import holds_images


@dataclass(frozen=True)
class TarSource(Source):
    """The images of tar shards, on this machine or at addresses, in their order there.

    An image's path is that in the shard, after the shard's name where names begin anew in each. Its class stands in the
    ``.cls`` beside it (a class name, a WordNet id or an index), its boxes in the ``.xml``, its path in the ``.path`` if
    the name in the shard had to be another. A damaged shard is a failed image of the shard's name, after those before
    the damage.
    """

    kind = "tar"
    in_order = True

    ahead: Ahead | None = None

    @classmethod
    def matches(cls, root: Path | str) -> bool:
        """Whether it is a tar file, a pattern or list of them, or a folder that holds tar files and no images."""
        if is_address(root):
            return True
        if not os.path.isdir(root):
            return str(root).endswith((".tar", *PACKED))
        return bool(shards_in(Path(root))) and not holds_images(Path(root))

    @classmethod
    def list_images(cls, root: Path | str, options: ListingOptions) -> Self:
        table = ClassTable(require_classes(root, options.class_names))
        shards = _shards_at(root)
        index = _earlier_index(options.earlier, shards)
        if index is None:
            index = index_shards(shards)
        paths = _row_names(index, shards)
        base, columns = index["path"], {name: index[name] for name in SCHEMA.names[1:]}
        facts = {"shards": [[*shard] for shard in shards]}
        source = cls.make(paths, np.full(len(paths), -1), facts, **columns, base=base)
        labels, errors, notes = label_images(
            root,
            options,
            base.combine_chunks(),
            _folders(base.combine_chunks(), table, columns["fault"].combine_chunks()),
            source.columns["class"],
            source.box_names,
            is_lenient=True,
        )
        errors |= {k: fault for k, fault in enumerate(columns["fault"].to_pylist()) if fault is not None}
        return cls.make(paths, labels, facts, notes, errors, **columns, base=base)

    @cached_property
    def shards(self) -> list[StoredFile]:
        return [StoredFile(*shard) for shard in self.facts["shards"]]

    @property
    def may_have_boxes(self) -> bool:
        return pc.any(pc.greater(self.columns["xml_size"], 0)).as_py() or False

    def has_boxes(self, i: int) -> bool:
        return bool(self.columns["xml_size"][i].as_py())

    def box_names(self, numbers: Sequence[int]) -> Iterator[Sequence[str] | None]:
        """What the boxes of images of these numbers, ascending, are named after; None = an image has none."""
        source = self._fetched_ahead(np.array([i for i in numbers if self.has_boxes(i)], np.int64), "xml_")
        for i in numbers:
            path = Path(path_at(self.columns["base"], i))
            yield names_of_boxes(path, *source.contents(i, "xml_")) if self.has_boxes(i) else None

    def planned(self, indices: np.ndarray) -> Self:
        can_be_read = self.columns["error"].is_null().to_numpy(zero_copy_only=False)
        return self._fetched_ahead(indices[can_be_read[indices]], "", "xml_")

    def _fetched_ahead(self, indices: np.ndarray, *parts: str) -> Self:
        if not all(shard.is_remote for shard in self.shards):
            return self
        rows = self.table.take(pa.array(indices))
        offsets, sizes = (
            np.stack([rows[f"{part}{column}"].fill_null(0).to_numpy() for part in parts])
            for column in ("offset", "size")
        )
        starts = np.where(sizes > 0, offsets, offsets[:1]).min(0)  # of no boxes, 0 is no place
        return replace(
            self, ahead=Ahead(self.shards, indices, rows["shard"].to_numpy(), starts, (offsets + sizes).max(0))
        )

    def contents(self, i: int, *parts: str) -> list[bytes]:
        """Parts of a sample: "" = the image, "xml_" = its boxes."""
        places = [(self.columns[f"{part}offset"][i].as_py(), self.columns[f"{part}size"][i].as_py()) for part in parts]
        ranges = [(start, start + size) for start, size in places]
        if self.ahead is not None:
            return self.ahead.read(i, *ranges)
        shard = self.shards[self.columns["shard"][i].as_py()]
        return [shard.read(*each) for each in ranges]

    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        image, *xml = self.contents(i, *(("", "xml_") if self.has_boxes(i) else ("",)))
        return reader.read(image, self.path(i), int(self.labels[i]), i, *xml)

    def content_fingerprint(self) -> dict[str, Any]:
        """The number of shards, and a hash of their names and sizes, and of the tags of those at addresses."""
        sizes = [[shard.name, shard.size, *([shard.stamp] if shard.is_remote else [])] for shard in self.shards]
        return {"n_shards": len(sizes), "shards_sha256": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()}


def _shards_at(root: Path | str) -> list[StoredFile]:
    """The shards of a folder, or those that a pattern or a list names.

    Raises:
        DataError: If one does not exist, or is packed as a whole.
    """
    names = [] if is_address(root) or not os.path.isdir(root) else shards_in(Path(root))
    for name in [] if names else itertools.chain.from_iterable(map(braceexpand, str(root).split("::"))):
        if is_address(name):
            if not path_of(name).endswith((".tar", *PACKED)):
                raise no_folder(name)
            names += matching(name)
        else:
            names += (not os.path.exists(name) and sorted(glob.glob(name))) or [name]
    if missing := [name for name in names if not is_address(name) and not os.path.isfile(name)]:
        raise DataError(f"{len(missing)} of {len(names)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    if not names:
        raise DataError(f"No shard matches {root}.")
    for name in names:
        if path_of(name).endswith(PACKED) or (not is_address(name) and _is_gzip(name)):
            raise DataError(
                f"{name} is compressed as a whole, so no image of it can be read by itself: unpack it to a .tar "
                "(gunzip), which is hardly larger."
            )
    with ThreadPoolExecutor(AT_ONCE, "finder") as finders:
        return [*finders.map(stored_file, names)]


def _is_gzip(file: str) -> bool:
    with open(file, "rb") as opened:
        return opened.read(2) == b"\x1f\x8b"


def _earlier_index(earlier: Path | None, shards: Sequence[StoredFile]) -> pa.Table | None:
    """The index that an earlier run saved with its listing, if it was of all images of these very shards."""
    try:
        source = Source.load(earlier) if earlier else None
    except (OSError, pa.ArrowException, LookupError, ValueError, StopIteration):
        return None
    if not isinstance(source, TarSource) or source.shards != shards or source.n_found != len(source):
        return None
    # In memory of its own: the file is about to be written anew.
    table = source.table.drop_columns("path").rename_columns({"base": "path"}).select(SCHEMA.names)
    return table.take(pa.array(np.arange(len(table))))


def _row_names(index: pa.Table, shards: Sequence[StoredFile]) -> pa.Array:
    """How the rows call the images: after their shard, where names begin anew in each.

    Raises:
        DataError: If a shard has two samples of one name.
    """
    paths, numbers = index["path"].combine_chunks(), index["shard"].to_numpy()
    codes = paths.dictionary_encode().indices.to_numpy().astype(np.int64)
    if len(np.unique(codes)) == len(paths):
        return paths
    _, first, n = np.unique(codes * len(shards) + numbers, return_index=True, return_counts=True)
    if (n > 1).any():
        k = int(first[n > 1][0])
        name = printable(paths[k].as_py())
        raise DataError(f"{shards[numbers[k]].path} has several samples named {name}, which rows could not tell apart.")
    counts = Counter(shard.name for shard in shards)
    names = [shard.name if counts[shard.name] == 1 else path_of(shard.path) for shard in shards]
    rows = [os.fsencode(f"{names[n]}/") + path for n, path in zip(numbers.tolist(), paths.to_pylist())]
    return pa.array(rows, pa.large_binary())


def _folders(paths: pa.Array, table: ClassTable, faults: pa.Array) -> pa.Array:
    """Of each image the topmost folder that is called after a class or, if none is, the topmost of all."""
    names = names_of(paths)
    has_parent = pc.and_(faults.is_null(), pc.match_substring(names, "/"))
    parents = pc.if_else(has_parent, pc.replace_substring_regex(names, "(?s)/[^/]*$", ""), None).dictionary_encode()
    found = []
    for parent in parents.dictionary.to_pylist():
        parts = [part for part in parent.split("/") if part not in ("", ".")]
        found.append(next(filter(table.is_named, parts), parts[0] if parts else None))
    return pa.array(found, pa.string()).take(parents.indices)
