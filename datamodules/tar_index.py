"""What lies where in tar shards, by their headers, which are read once; ``pack_shards.py`` writes it beside them."""

from __future__ import annotations

import itertools
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from datamodules.errors import DataError, printable
from datamodules.images.formats import image_extensions
from datamodules.remote import AT_ONCE, StoredFile, beside, is_address, small_content, stored_file
from datamodules.source import chunked
from datamodules.walk import is_of_the_system

INDEX = "index.parquet"
"""File beside the shards that says what lies where in them."""

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_BLOCK = 512
SCHEMA = pa.schema(
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


def shards_in(root: Path) -> list[str]:
    """The shards in a folder, also those that are packed as a whole, only to refuse them."""
    names = sorted(entry.name for entry in os.scandir(root))
    return [str(root / name) for name in names if name.endswith((".tar", *PACKED)) and name[0] != "."]


def index_shards(shards: Sequence[StoredFile]) -> pa.Table:
    """What lies where in shards: from the index beside them or, where there is none, from their headers.

    Raises:
        DataError: If they hold no images, or the first is no archive.
    """
    indices = {shard: beside(shard.path, INDEX) for shard in shards}
    known = {index: _written_in(index) for index in {*indices.values()}}
    parts = {shard: part for shard in shards if (part := known[indices[shard]](shard)) is not None}
    left = [shard for shard in shards if shard not in parts]
    # Of files of this machine Python's lock lets no two be indexed at a time.
    at_once = AT_ONCE if any(shard.is_remote for shard in left) else 1
    with ThreadPoolExecutor(at_once, "indexer") as indexers:
        found = indexers.map(index_shard, left)
        console = Console(stderr=True)
        for shard in track(left, "Indexing shards", console=console, transient=True) if left else ():
            parts[shard] = next(found)
    damage = (*parts[shards[0]]["fault"].slice(0, 1).to_pylist(), None)[0] or ""
    if damage.startswith(_DAMAGED_AFTER.format(0)):
        raise DataError(
            f"{shards[0].path} is no tar archive, or is damaged from the start: {damage.partition(': ')[2]}."
        )
    index = pa.concat_tables([parts[shard] for shard in shards])
    if not len(index):
        raise DataError(f"{shards[0].path} holds no samples.")
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [len(parts[shard]) for shard in shards])
    return index.set_column(SCHEMA.get_field_index("shard"), "shard", pa.array(numbers)).combine_chunks()


def write_index(folder: Path) -> None:
    """Writes beside the shards of a folder what lies where in them."""
    shards = [*map(stored_file, shards_in(folder))]
    sizes = [[shard.name, shard.size] for shard in shards]
    pq.write_table(index_shards(shards).replace_schema_metadata({"shards": json.dumps(sizes)}), folder / INDEX)


def _written_in(file: str) -> Callable[[StoredFile], pa.Table | None]:
    """What an index says of a shard beside it; None where it says nothing, or what is no longer true."""
    try:
        index = pq.read_table(pa.BufferReader(small_content(file)) if is_address(file) else file)
        sizes = json.loads(index.schema.metadata[b"shards"])
        index = index.replace_schema_metadata().select(SCHEMA.names).cast(SCHEMA)
        # Of an address only the size tells, since an upload changes times.
        written = None if is_address(file) else os.stat(file).st_mtime_ns
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError):
        return lambda shard: None
    ends = np.searchsorted(index["shard"].to_numpy(), np.arange(len(sizes) + 1)).tolist()
    places = {(name, size): place for (name, size), *place in zip(sizes, ends, ends[1:])}

    def part(shard: StoredFile) -> pa.Table | None:
        start, end = places.get((shard.name, shard.size), (0, 0))
        is_later = written is not None and isinstance(shard.stamp, int) and shard.stamp > written
        return None if start == end or is_later else index.slice(start, end - start)

    return part


def index_shard(shard: StoredFile) -> pa.Table:
    """What lies where in a shard, by its headers: a row for each sample, and one more if it is damaged."""

    def rows() -> Iterator[dict[str, Any]]:
        n = 0
        try:
            for _, members in itertools.groupby(_members(file, shard.size), key=lambda member: member.key):
                row = _row([*members], file)  # before damage the last one may lack a part
                yield row
                n += 1
        except (OSError, EOFError, tarfile.TarError) as error:
            fault = f"{_DAMAGED_AFTER.format(n)}{error}"
            yield {"path": os.fsencode(shard.name), "fault": fault, "xml_size": 0}

    with shard.open() as file:
        tables = [pa.Table.from_pylist(some, SCHEMA) for some in chunked(rows())]
    return pa.concat_tables([SCHEMA.empty_table(), *tables])


class _Member(NamedTuple):
    """A file in a shard: the key of its sample, what it is in that, and its header."""

    key: str
    suffix: str
    header: tarfile.TarInfo


def _members(file: BinaryIO, n_bytes: int) -> Iterator[_Member]:
    """The files of an archive that are part of a sample, from its start to its end.

    Not TarFile's own iteration, which takes any header that it cannot read for the archive's end, and keeps all.
    """
    end = 0
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  raises where there is no archive
    while True:
        file.seek(end)
        try:
            header = tarfile.TarInfo.fromtarfile(archive)
        except tarfile.HeaderError as error:
            file.seek(end)
            rest = iter(lambda: file.read(1 << 20), b"")
            if end >= n_bytes or any(part.strip(b"\0") for part in rest):
                raise tarfile.ReadError(f"{error} at byte {end:,}") from error
            return
        end = header.offset_data + (-(-header.size // _BLOCK) * _BLOCK if header.isreg() else 0)
        if header.isreg() and header.offset_data + header.size > n_bytes:
            raise tarfile.ReadError("unexpected end of data")
        name = header.name.removeprefix("./")
        folder, slash, base = name.rpartition("/")
        stem, _, suffix = base.partition(".")
        # Hidden files and those of a system, files without extension, and WebDataset's own are no part of a sample.
        is_none = not (stem and suffix) or any(map(is_of_the_system, name.split("/")))
        is_own = name.startswith("__") and name.split("/")[0].endswith("__")
        if not is_none and not is_own and (header.isreg() or header.issym() or header.islnk()):
            yield _Member(folder + slash + stem, suffix, header)


def _row(members: Sequence[_Member], file: BinaryIO) -> dict[str, Any]:
    """What the index says of a sample."""
    named = {member.suffix: member.header for member in reversed(members)}
    images = [suffix for suffix in named if f".{suffix.lower()}" in image_extensions()]
    row: dict[str, Any] = {"xml_size": 0, "fault": _fault(members, images)}
    path = members[0].key
    if len(images) == 1:
        path += f".{images[0]}"
        row |= {"offset": named[images[0]].offset_data, "size": named[images[0]].size}
    row["path"] = _content(named["path"], file) if "path" in named else os.fsencode(path)
    if "cls" in named and named["cls"].isreg():
        row["class"] = printable(_content(named["cls"], file))
    if "xml" in named:
        row |= {"xml_offset": named["xml"].offset_data, "xml_size": named["xml"].size}
    return row


def _fault(members: Sequence[_Member], images: Sequence[str]) -> str | None:
    """Why a sample has no image; None = it has one."""
    suffixes = [member.suffix for member in members]
    if again := next((m.header.name for k, m in enumerate(members) if m.suffix in suffixes[:k]), None):
        return f"{again}: duplicate file name in the shard"
    if len(images) != 1:
        ends = [f".{suffix.lower().rpartition('.')[2]}" for suffix in suffixes if "." in suffix]
        held = ", ".join(sorted(suffixes))
        return f"a sample should hold one image; this one holds {held}" + _FOREIGN_DOTS * any(
            end in image_extensions() for end in ends
        )
    if not all(member.header.isreg() for member in members):
        return "a link; shards hold the files themselves"
    return None


def _content(member: tarfile.TarInfo, file: BinaryIO) -> bytes:
    file.seek(member.offset_data)
    return file.read(member.size)
