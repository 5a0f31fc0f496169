"""Names of what lies in a folder, of which there may be a million."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import pyarrow as pa

from datamodules.reading.decoding import EXTENSIONS

_CHUNK = 1 << 12
"""So many names at most are Python objects at a time: a million of them would take a hundred megabytes."""

_NO_NAMES = pa.array([], pa.large_binary())


def list_files(root: Path, folder: str = "", extensions: Collection[str] = EXTENSIONS) -> pa.Array:
    """Paths, relative to ``root``, of the files in ``root/folder``, as sorted bytes; hidden files are left out."""
    wanted = {os.fsencode(extension) for extension in extensions}
    prefix = os.fsencode(f"{folder}/" if folder else "")
    with os.scandir(os.fsencode(root / folder)) as entries:
        names = (
            prefix + entry.name
            for entry in entries
            if os.path.splitext(entry.name)[1].lower() in wanted and not entry.name.startswith(b".")
        )
        chunks = iter(lambda: pa.array(itertools.islice(names, _CHUNK), pa.large_binary()), _NO_NAMES)
        found = pa.concat_arrays([_NO_NAMES, *chunks])
    return found.sort()


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; hidden ones are left out."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def each_name(names: pa.Array) -> Iterator[bytes]:
    """The names as Python objects, of which few are there at a time."""
    for start in range(0, len(names), _CHUNK):
        yield from names.slice(start, _CHUNK).to_pylist()


def hash_files(root: Path, extensions: Collection[str]) -> tuple[int, str]:
    """How many files of these extensions lie in ``root`` and in the folders in it, and a hash of their names."""
    sha256, n = hashlib.sha256(), 0
    for folder in ("", *class_folders(root)):
        names = list_files(root, folder, extensions)
        for name in each_name(names):
            sha256.update(name + b"\0")
        n += len(names)
    return n, sha256.hexdigest()
