"""Reads one tar shard as WebDataset's samples, and tells damage from the end."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from webdataset.tariterators import group_by_keys

from datamodules.reading.formats import extension_by_content
from datamodules.sources.files import is_of_the_system

DAMAGES = (OSError, EOFError, tarfile.TarError, zlib.error)
"""What reading a damaged shard raises."""


def read_shard(shard: str) -> Iterator[dict[str, Any]]:
    """The samples of a shard as webdataset groups them: ``__key__``, the content by extension, ``__error__`` if broken.

    Raises:
        OSError, EOFError, tarfile.TarError, zlib.error: If the shard is damaged, after the samples before the damage.
    """
    errors: list[str] = []

    def note(error: Exception) -> bool:
        errors.append(str(error.args[0]))
        return True  # go on

    with open(shard, "rb") as stream:
        for sample in group_by_keys(_members(stream, shard), keys=_split, lcase=False, handler=note):
            yield sample | ({"__error__": "; ".join(errors)} if errors else {})
            errors.clear()


def _members(stream: BinaryIO, shard: str) -> Iterator[dict[str, Any]]:
    """The files of an archive, read from its start to its end.

    Not webdataset's own reader, which takes the first thing that is no header for the end of the archive.
    """
    with tarfile.open(fileobj=stream, mode="r|*", tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None or member.issym() or member.islnk():
                data = None if file is None else file.read()
                name = member.name.removeprefix("./")
                if data is not None and "." not in os.path.basename(name) and (kind := extension_by_content(data)):
                    # An image by its content alone is one here too, under its own name.
                    yield {"fname": f"{name}.path", "data": os.fsencode(name), "__url__": shard}
                    name += kind
                yield {"fname": name, "data": data, "__url__": shard}
            archive.members = []  # type: ignore[attr-defined]  # or it would keep all of them
        end = archive.offset
    if shard.endswith(".tar"):
        stream.seek(end)
        if any(any(block) for block in iter(lambda: stream.read(1 << 20), b"")):
            raise tarfile.ReadError(f"something follows the end of the archive, which stands at byte {end:,}")


class _StrictTarInfo(tarfile.TarInfo):
    """TarFile takes any header that it cannot read for the archive's end; only the end mark is."""

    @classmethod
    def fromtarfile(cls, tarfile_: Any) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset:,}, and no end of the archive") from error


def _split(name: str) -> tuple[str | None, str | None]:
    """A file's name as the sample's key and the rest: at the first dot, as everywhere with WebDataset."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    # Hidden files and those of a system, files without extension, and WebDataset's own are no part of a sample.
    is_none = not (stem and dot) or any(is_of_the_system(part) for part in name.split("/"))
    if is_none or (name.startswith("__") and name.split("/")[0].endswith("__")):
        return None, None
    return folder + slash + stem, suffix


def first_key(shard: str) -> str | None:
    """What the first sample is called; None in a shard that is damaged from the start, or empty."""
    try:
        sample = next(read_shard(shard), None)
    except DAMAGES:
        return None
    return None if sample is None else sample["__key__"]
