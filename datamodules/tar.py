"""Tar shards in WebDataset's layout: files that share a name up to its first dot are one sample."""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from braceexpand import braceexpand

from datamodules.boxes import names_of_boxes
from datamodules.classes import ClassTable
from datamodules.errors import DataError, printable
from datamodules.labelling import label_images
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.source import ListingOptions, Source, names_of, path_at, require_classes
from datamodules.tar_index import PACKED, SCHEMA, index_shards, shards_in
from datamodules.walk import holds_images


class TarSource(Source):
    """The images of tar shards, in their order there.

    An image's path is that in the shard, after the shard's name where names begin anew in each. Its class stands in the
    ``.cls`` beside it (a class name, a WordNet id or an index), its boxes in the ``.xml``, its path in the ``.path`` if
    the name in the shard had to be another. A damaged shard is a failed image of the shard's name, after those before
    the damage.
    """

    kind = "tar"
    in_order = True

    @classmethod
    def matches(cls, root: Path) -> bool:
        """Whether it is a tar file, a pattern or list of them, or a folder that holds tar files and no images."""
        if not root.is_dir():
            return str(root).endswith((".tar", *PACKED))
        return bool(shards_in(root)) and not holds_images(root)

    @classmethod
    def list_images(cls, root: Path, options: ListingOptions) -> Self:
        table = ClassTable(require_classes(root, options.class_names))
        shards = _shards_at(root)
        index = _earlier_index(options.earlier, shards)
        if index is None:
            index = index_shards([shard for shard, _, _ in shards])
        paths = _row_names(index, [shard for shard, _, _ in shards])
        base, columns = index["path"], {name: index[name] for name in SCHEMA.names[1:]}
        source = cls.make(paths, np.full(len(paths), -1), {"shards": shards}, **columns, base=base)
        labels, errors, notes = label_images(
            root,
            options,
            base.combine_chunks(),
            _folders(base.combine_chunks(), table, columns["fault"].combine_chunks()),
            source.columns["class"],
            lambda i: names_of_boxes(Path(path_at(base, i)), source.boxes(i)) if source.has_boxes(i) else None,
            is_lenient=True,
        )
        errors |= {k: fault for k, fault in enumerate(columns["fault"].to_pylist()) if fault is not None}
        return cls.make(paths, labels, source.facts, notes, errors, **columns, base=base)

    @property
    def may_have_boxes(self) -> bool:
        return pc.any(pc.greater(self.columns["xml_size"], 0)).as_py() or False

    def has_boxes(self, i: int) -> bool:
        return bool(self.columns["xml_size"][i].as_py())

    def boxes(self, i: int) -> bytes:
        return self._content(i, "xml_offset", "xml_size")

    def read_one(self, i: int, reader: SampleReader) -> Sample | Failure:
        content = self._content(i, "offset", "size")
        xml = self.boxes(i) if self.has_boxes(i) else None
        return reader.read(content, self.path(i), int(self.labels[i]), i, xml)

    def _content(self, i: int, offset: str, size: str) -> bytes:
        # Opened anew each time: a process may have few files open, and there may be thousands of shards.
        with open(self.facts["shards"][self.columns["shard"][i].as_py()][0], "rb", buffering=0) as file:
            return os.pread(file.fileno(), self.columns[size][i].as_py(), self.columns[offset][i].as_py())

    def content_fingerprint(self) -> dict[str, Any]:
        """The number of shards, and a hash of their names and sizes."""
        sizes = [[os.path.basename(shard), size] for shard, size, _ in self.facts["shards"]]
        return {"n_shards": len(sizes), "shards_sha256": hashlib.sha256(json.dumps(sizes).encode()).hexdigest()}


def _shards_at(root: Path) -> list[list[Any]]:
    """Path, size and time of each shard of a folder, or of those that a pattern or a list names.

    Raises:
        DataError: If one does not exist, or is packed as a whole.
    """
    shards = shards_in(root) if root.is_dir() else []
    for name in [] if shards else itertools.chain.from_iterable(map(braceexpand, str(root).split("::"))):
        shards += (not os.path.exists(name) and sorted(glob.glob(name))) or [name]
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise DataError(f"{len(missing)} of {len(shards)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    for shard in shards:
        with open(shard, "rb") as file:
            if shard.endswith(PACKED) or file.read(2) == b"\x1f\x8b":
                raise DataError(
                    f"{shard} is compressed as a whole, so no image of it can be read by itself: unpack it to a .tar "
                    "(gunzip), which is hardly larger."
                )
    found = [(shard, os.stat(shard)) for shard in shards]
    return [[shard, status.st_size, status.st_mtime_ns] for shard, status in found]


def _earlier_index(earlier: Path | None, shards: list[list[Any]]) -> pa.Table | None:
    """The index that an earlier run saved with its listing, if it was of all images of these very shards."""
    try:
        source = Source.load(earlier) if earlier else None
    except (OSError, pa.ArrowException, LookupError, ValueError, StopIteration):
        return None
    if source is None or source.kind != TarSource.kind or source.facts["shards"] != shards:
        return None
    if source.n_found != len(source):
        return None
    # In memory of its own: the file is about to be written anew.
    table = source.table.drop_columns("path").rename_columns({"base": "path"}).select(SCHEMA.names)
    return table.take(pa.array(np.arange(len(table))))


def _row_names(index: pa.Table, shards: Sequence[str]) -> pa.Array:
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
        raise DataError(f"{shards[numbers[k]]} has several samples named {name}, which rows could not tell apart.")
    bases = [os.path.basename(shard) for shard in shards]
    names = [base if bases.count(base) == 1 else shard for base, shard in zip(bases, shards)]
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
