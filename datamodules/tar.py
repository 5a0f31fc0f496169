"""Tar shards in WebDataset's layout: files that share a name up to its first dot are one sample.

The headers are read once, and say where each image lies; ``pack_shards.py`` writes them beside the shards.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from braceexpand import braceexpand
from rich.console import Console
from rich.progress import Progress

from datamodules.boxes import names_of_boxes
from datamodules.classes import ClassTable
from datamodules.errors import DataError, printable
from datamodules.images.formats import extension_by_content, image_extensions, is_raw, remedy
from datamodules.labelling import ClassFolders, label_images
from datamodules.reader import Failure, Sample, SampleReader
from datamodules.source import ListingOptions, Paths, Source, require_classes
from datamodules.walk import holds_images, is_of_the_system

INDEX = "index.parquet"
"""File beside the shards that says what lies where in them."""

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLOCK, _ROWS = 512, 10_000
_SCHEMA = pa.schema(
    [
        ("path", pa.large_binary()),
        ("class", pa.string()),  # what the sample's .cls says; null = it has none
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("xml_offset", pa.int64()),
        ("xml_size", pa.int64()),  # 0 = the sample has no boxes
        ("fault", pa.string()),  # why the sample has no image; null = it has one
        ("shard", pa.int32()),
    ]
)
_DAMAGED_AFTER = "the shard is damaged after its first {} samples: "
_FOREIGN_DOTS = (
    "; WebDataset takes a name up to its first dot for that of the sample, so names should have no other dots than the "
    "one before the extension"
)


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
            return str(root).endswith((".tar", *_PACKED))
        return bool(_shards_in(root)) and not holds_images(root)

    @classmethod
    def list_images(cls, root: Path, options: ListingOptions) -> Self:
        class_names = require_classes(root, options.class_names)
        shards = _shards_at(root)
        index = _earlier_index(options.earlier, shards)
        if index is None:
            index = index_shards([shard for shard, _, _ in shards])
        base, faults = index["path"].combine_chunks(), index["fault"].to_pylist()
        paths = _row_names(index, [shard for shard, _, _ in shards], faults)
        errors = {k: fault for k, fault in enumerate(faults) if fault is not None}
        found = Paths(base)
        columns = {name: index[name].combine_chunks() for name in _SCHEMA.names[1:]}
        source = cls.make(paths, np.full(len(base), -1), {"shards": shards}, **columns, base=base)
        labelled = label_images(
            root,
            options,
            found,
            _class_folders(base, ClassTable(class_names), errors),
            columns["class"],
            lambda i: names_of_boxes(Path(found[i]), source.boxes(i)) if source.has_boxes(i) else None,
            is_lenient=True,
        )
        labels = pa.array(labelled.labels)
        return cls(source.table.set_column(1, "label", labels), source.facts, tuple(labelled.notes)).with_errors(
            {**labelled.errors, **errors}
        )

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


def _shards_in(root: Path) -> list[str]:
    """The shards in a folder; those that are packed as a whole only to refuse them."""
    return sorted(
        str(root / e.name) for e in os.scandir(root) if e.name.endswith((".tar", *_PACKED)) and e.name[0] != "."
    )


def _shards_at(root: Path) -> list[list[Any]]:
    """Path, size and time of each shard of a folder, or of those that a pattern or a list names.

    Raises:
        DataError: If one does not exist, or is packed as a whole.
    """
    named: list[str] = []
    for part in [] if root.is_dir() else str(root).split("::"):
        for one in braceexpand(part):
            named += (not os.path.exists(one) and sorted(glob.glob(one))) or [one]
    shards = _shards_in(root) if root.is_dir() else named
    if missing := [shard for shard in shards if not os.path.isfile(shard)]:
        raise DataError(f"{len(missing)} of {len(shards)} shards of {root} do not exist: {', '.join(missing[:3])}.")
    for shard in shards:
        with open(shard, "rb") as file:
            if shard.endswith(_PACKED) or file.read(2) == b"\x1f\x8b":
                raise DataError(
                    f"{shard} is compressed as a whole, so no image of it can be read by itself: unpack it to a .tar "
                    "(gunzip), which is hardly larger."
                )
    found = [(shard, os.stat(shard)) for shard in shards]
    return [[shard, status.st_size, status.st_mtime_ns] for shard, status in found]


def _earlier_index(earlier: Path | None, shards: list[list[Any]]) -> pa.Table | None:
    """The index that an earlier run saved with its listing, if it was of all images of these very shards."""
    if earlier is None or not earlier.exists():
        return None
    try:
        source = Source.load(earlier)
    except (OSError, pa.ArrowException, LookupError, ValueError, StopIteration):
        return None
    if source.kind != TarSource.kind or source.facts["shards"] != shards or source.n_found != len(source):
        return None
    # In memory of its own: the file is about to be written anew.
    table = source.table.select([*_SCHEMA.names[1:], "base"]).rename_columns([*_SCHEMA.names[1:], "path"])
    return pa.concat_tables([table.select(_SCHEMA.names).take(pa.array(np.arange(len(table))))])


def _row_names(index: pa.Table, shards: Sequence[str], faults: list[str | None]) -> pa.Array:
    """How the rows call the images; notes as faults those of which the shard has an earlier one of the same name."""
    numbers, paths = index["shard"].to_numpy(), index["path"].combine_chunks()
    codes = paths.dictionary_encode().indices.to_numpy()
    _, first = np.unique(codes.astype(np.int64) * len(shards) + numbers, return_index=True)
    is_first = np.zeros(len(paths), bool)
    is_first[first] = True
    repeats = len(np.unique(codes)) < int(is_first.sum())
    if is_first.all() and not repeats:
        return paths
    bases = [os.path.basename(shard) for shard in shards]
    names = [base if bases.count(base) == 1 else shard for base, shard in zip(bases, shards)]
    starts = np.searchsorted(numbers, np.arange(len(shards)))
    found = []
    for k, (path, number) in enumerate(zip(Paths(paths), numbers.tolist())):
        row = f"{names[number]}/{path}" if repeats else path
        if not is_first[k]:
            row = f"{row} (sample {k - starts[number]} of {names[number]})"
            faults[k] = "an earlier sample of the shard has the same name"
        found.append(os.fsencode(row))
    return pa.array(found, pa.large_binary())


def _class_folders(paths: pa.Array, table: ClassTable, errors: dict[int, str]) -> ClassFolders:
    """Of each image the topmost folder that is called after a class or, if none is, the topmost of all."""
    numbers: dict[str, int] = {}
    of_parent: dict[str, int] = {}
    codes = np.full(len(paths), -1)
    for k, path in enumerate(Paths(paths)):
        parent = path.rpartition("/")[0]
        if not parent or k in errors:
            continue
        if parent not in of_parent:
            parts = [printable(part) for part in parent.split("/") if part not in ("", ".")]
            folder = next((part for part in parts if table.is_named(part)), parts[0] if parts else "")
            of_parent[parent] = numbers.setdefault(folder, len(numbers)) if folder else -1
        codes[k] = of_parent[parent]
    return ClassFolders([*numbers], codes)


def index_shards(shards: Sequence[str]) -> pa.Table:
    """What lies where in shards: from the index beside them or, where there is none, from their headers.

    Raises:
        DataError: If they hold no images, or the first is no archive.
    """
    known: dict[str, dict[str, pa.Table]] = {}
    parts: dict[int, pa.Table] = {}
    for number, shard in enumerate(shards):
        folder, name = os.path.split(shard)
        if folder not in known:
            known[folder] = _index_in(Path(folder or "."))
        if name in known[folder]:
            parts[number] = known[folder][name]
    left = [k for k in range(len(shards)) if k not in parts]
    if left:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Indexing shards", total=sum(os.path.getsize(shards[k]) for k in left))
            for k in left:
                parts[k] = index_shard(shards[k], lambda n_bytes: progress.advance(task, n_bytes))
    if parts[0].num_rows == 1 and (damage := parts[0]["fault"][0].as_py() or "").startswith(_DAMAGED_AFTER.format(0)):
        raise DataError(f"{shards[0]} is no tar archive, or is damaged from the start: {damage.partition(': ')[2]}.")
    if not any(len(part) for part in parts.values()):
        raise DataError(f"{shards[0]} holds no samples.")
    numbered = [
        part.set_column(_SCHEMA.get_field_index("shard"), "shard", pa.array(np.full(len(part), k, np.int32)))
        for k, part in sorted(parts.items())
    ]
    return pa.concat_tables(numbered).combine_chunks()


def write_index(folder: Path) -> None:
    """Writes beside the shards of a folder what lies where in them."""
    shards = _shards_in(folder)
    sizes = [[os.path.basename(shard), os.path.getsize(shard)] for shard in shards]
    pq.write_table(index_shards(shards).replace_schema_metadata({"shards": json.dumps(sizes)}), folder / INDEX)


def _index_in(folder: Path) -> dict[str, pa.Table]:
    """The parts of a folder's index that are still true, by the shards' names."""
    try:
        index, written = pq.read_table(folder / INDEX), (folder / INDEX).stat().st_mtime_ns
        sizes = json.loads(index.schema.metadata[b"shards"])
        index = index.replace_schema_metadata().select(_SCHEMA.names).cast(_SCHEMA)
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError):
        return {}
    ends = np.searchsorted(index["shard"].to_numpy(), np.arange(len(sizes) + 1))
    return {
        name: index.slice(start, end - start)
        for (name, size), start, end in zip(sizes, ends[:-1].tolist(), ends[1:].tolist())
        if (folder / name).is_file() and _is_as_indexed((folder / name).stat(), size, written)
    }


def _is_as_indexed(status: os.stat_result, size: int, written: int) -> bool:
    return status.st_size == size and status.st_mtime_ns <= written


def index_shard(shard: str, advance: Callable[[int], object] = lambda n_bytes: None) -> pa.Table:
    """What lies where in a shard, by its headers: a row for each sample, and one more if it is damaged.

    Args:
        shard: The file.
        advance: Told how many bytes further it is.
    """
    tables, rows, n, damage = [_SCHEMA.empty_table()], [], 0, None
    with open(shard, "rb") as file:
        samples = _samples(file, advance)
        while True:
            try:
                rows.append({**next(samples).row(file), "shard": 0})
            except StopIteration:
                break
            except (OSError, EOFError, tarfile.TarError) as error:
                damage = str(error)
                break
            n += 1
            if len(rows) == _ROWS:  # a shard may hold a million samples
                tables.append(pa.Table.from_pylist(rows, _SCHEMA))
                rows = []
    if damage is not None:
        fault = f"{_DAMAGED_AFTER.format(n)}{damage}"
        rows.append({"path": os.fsencode(os.path.basename(shard)), "fault": fault, "xml_size": 0, "shard": 0})
    return pa.concat_tables([*tables, pa.Table.from_pylist(rows, _SCHEMA)])


def _samples(file: BinaryIO, advance: Callable[[int], object]) -> Iterator[_Grouped]:
    """The samples of an archive: members that follow each other and have the same key."""
    sample = None
    for member in _members(file, advance):
        if (named := _key_of(member, file)) is None:
            continue
        key, suffix, whole_name = named
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Grouped(key)
        sample.add(suffix, member, whole_name)
    if sample is not None:  # before damage the last one may lack a part
        yield sample


def _members(file: BinaryIO, advance: Callable[[int], object]) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, from its start to its end.

    Not TarFile's own iteration, which takes any header that it cannot read for the archive's end, and keeps all.
    """
    n_bytes = os.fstat(file.fileno()).st_size
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  raises where there is no archive
    place, said = 0, 0
    while True:
        file.seek(place)
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            what = "truncated header" if block else "no end of the archive"
            raise tarfile.ReadError(f"{what} at byte {place:,}")
        if not any(block):
            if any(any(more) for more in iter(lambda: file.read(1 << 20), b"")):
                raise tarfile.ReadError(f"something follows the end of the archive, which stands at byte {place:,}")
            advance(n_bytes - said)
            return
        file.seek(place)
        try:
            member = tarfile.TarInfo.fromtarfile(archive)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {place:,}, and no end of the archive") from error
        place = member.offset_data + (-(-member.size // _BLOCK) * _BLOCK if member.isreg() else 0)
        if member.offset_data + member.size > n_bytes and member.isreg():
            raise tarfile.ReadError("unexpected end of data")
        yield member
        if place - said > 1 << 24:
            advance(place - said)
            said = place


@dataclass
class _Grouped:
    """The members of a shard that are one sample, by what follows the first dot in their names."""

    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    whole_name: str = ""
    """Of an image that has no extension."""
    duplicate: str = ""

    def add(self, suffix: str, member: tarfile.TarInfo, whole_name: str) -> None:
        if suffix in self.members:
            self.duplicate = member.name
        self.members.setdefault(suffix, member)
        self.whole_name = self.whole_name or whole_name

    def row(self, file: BinaryIO) -> dict[str, Any]:
        images = [name for name in self.members if f".{name.lower()}" in image_extensions()]
        image = images[0] if len(images) == 1 else None
        path = os.fsencode(self.whole_name or self.key + (f".{image}" if image else ""))
        if "path" in self.members:
            path = _content(self.members["path"], file)
        row: dict[str, Any] = {"path": path, "fault": self._fault(image), "xml_size": 0}
        if image:
            row |= {"offset": self.members[image].offset_data, "size": self.members[image].size}
        if "cls" in self.members and self.members["cls"].isreg():
            row["class"] = printable(_content(self.members["cls"], file))
        if "xml" in self.members:
            row |= {"xml_offset": self.members["xml"].offset_data, "xml_size": self.members["xml"].size}
        return row

    def _fault(self, image: str | None) -> str | None:
        if self.duplicate:
            return f"{self.duplicate}: duplicate file name in the shard"
        if image is None:
            has_dots = any(
                "." in name and f".{name.lower().rpartition('.')[2]}" in image_extensions() for name in self.members
            )
            held = ", ".join(sorted(self.members))
            return f"a sample should hold one image; this one holds {held}" + _FOREIGN_DOTS * has_dots
        if is_raw(f"x.{image}"):
            return str(remedy(f"x.{image}"))
        if not all(member.isreg() for member in self.members.values()):
            return "a link; shards hold the files themselves"
        return None


def _key_of(member: tarfile.TarInfo, file: BinaryIO) -> tuple[str, str, str] | None:
    """The key of a member's sample, what it is in that, and its whole name if it has no extension; None = no part."""
    if not (member.isreg() or member.issym() or member.islnk()):
        return None
    name = member.name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    whole_name = ""
    if not dot and member.isreg():
        # An image by its content alone is one here too, under its own name.
        suffix, whole_name = extension_by_content(_content(member, file)).removeprefix("."), name
    # Hidden files and those of a system, files without extension, and WebDataset's own are no part of a sample.
    is_none = not (stem and suffix) or any(is_of_the_system(part) for part in name.split("/"))
    if is_none or (name.startswith("__") and name.split("/")[0].endswith("__")):
        return None
    return folder + slash + stem, suffix, whole_name


def _content(member: tarfile.TarInfo, file: BinaryIO) -> bytes:
    return os.pread(file.fileno(), member.size, member.offset_data)
