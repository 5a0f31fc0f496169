"""Lists folders of images and labels them by the folders' names."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.classes import ClassTable
from datamodules.errors import DataError
from datamodules.reading.decoding import EXTENSIONS
from datamodules.writing import written_whole

_CHUNK = 1 << 12
"""So many names at most are Python objects at a time: a million of them would take a hundred megabytes."""

_SIZES = 1000

_NO_NAMES = pa.array([], pa.large_binary())


@dataclass(frozen=True)
class Listing:
    """The images of a folder: paths relative to ``root`` (as the file system's bytes) and labels, -1 = unlabelled.

    The order goes round the classes: the first image of each, then the second of each. So the first images of a run,
    those with figures, show different classes, and a run over the first batches is a sample of all classes.

    Attributes:
        done: Which images have their rows already, bool ``(N,)``.
        file: Where :meth:`save` wrote it. Such a listing is mapped into memory, which all processes share, and
            is pickled as its file's name.

    Example:
        >>> paths = pa.array([b"cat/a.jpg"], pa.large_binary())
        >>> listing = Listing(Path("photos"), paths, np.array([281]), np.array([False]))
        >>> len(listing), listing.path(0)
        (1, 'cat/a.jpg')
    """

    root: Path
    paths: pa.Array
    labels: np.ndarray
    done: np.ndarray
    file: Path | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __reduce__(self) -> Any:
        return super().__reduce__() if self.file is None else (Listing.load, (self.file,))

    def path(self, index: int) -> str:
        return os.fsdecode(self.paths[index].as_py())

    def todo(self, rank: int = 0, world: int = 1, batch_size: int = 1, limit: float = 1.0) -> np.ndarray:
        """The indices of the images that have no rows yet, of the share of one process among ``world``.

        Of the share, only the first ``limit`` batches are taken into account, see :func:`first_batches`. What is done
        is left out of each share, not of what is shared out: so a continued run has the same batches, to the last bit,
        as one that was never interrupted.
        """
        mine = np.arange(rank, len(self), world)
        mine = mine[: first_batches(len(mine), batch_size, limit)]
        return mine[~self.done[mine]]

    def without(self, done: Collection[str]) -> Listing:
        """The listing with the images of these :func:`printable` paths marked as done."""
        if not done:
            return self
        mask = np.empty(len(self), dtype=bool)
        for start in range(0, len(self), _CHUNK):
            chunk = self.paths.slice(start, _CHUNK)
            mask[start : start + len(chunk)] = [printable(path) in done for path in chunk.to_pylist()]
        return replace(self, done=mask)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this listing from another: how many images, a hash of paths and labels, and one of sizes.

        The sizes are those of a thousand files, spread over all: files that were written anew under their old names
        are noticed, and a file system with a million of them is not asked about each.
        """
        sha256 = hashlib.sha256(self.labels.astype(np.int64).tobytes())
        _hash_names(sha256, self.paths)
        some = np.unique(np.linspace(0, len(self) - 1, min(len(self), _SIZES)).astype(int))
        sizes = json.dumps([_size(self.root / self.path(k)) for k in some.tolist()])
        return {
            "n_images": len(self),
            "sha256": sha256.hexdigest(),
            "sizes_sha256": hashlib.sha256(sizes.encode()).hexdigest(),
        }

    def save(self, file: Path) -> None:
        """Writes an Arrow file, aside and then renamed, so that it is either whole or not there."""
        columns = {"path": self.paths, "label": self.labels, "done": self.done}
        write_arrow(pa.table(columns, metadata={"root": os.fsencode(self.root)}), file)

    @classmethod
    def load(cls, file: Path) -> Listing:
        """Maps what :meth:`save` wrote into memory: it is read as it is needed, and shared between processes."""
        table = read_arrow(file)
        root = Path(os.fsdecode(table.schema.metadata[b"root"]))
        columns = [table[name].combine_chunks() for name in ("path", "label", "done")]
        return cls(root, columns[0], columns[1].to_numpy(), columns[2].to_numpy(zero_copy_only=False), file)


def first_batches(n: int, batch_size: int, limit: float) -> int:
    """How many of ``n`` samples lie in the first ``limit`` batches: a whole number of them, or a share of all.

    Example:
        >>> first_batches(10, 4, 2), first_batches(10, 4, 5), first_batches(10, 4, 0.5), first_batches(10, 4, 1.0)
        (8, 10, 4, 10)
    """
    n_batches = -(-n // batch_size)
    return min(n, batch_size * (limit if isinstance(limit, int) else int(n_batches * limit)))


def write_arrow(table: pa.Table, file: Path) -> None:
    """Writes a table, whole or not at all."""
    with (
        written_whole(file) as aside,
        pa.OSFile(str(aside), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        # In one piece: several could not be mapped as one array.
        writer.write_table(table.combine_chunks())


def read_arrow(file: Path) -> pa.Table:
    """Maps a table into memory."""
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()


def list_folder(root: str | Path, class_names: Sequence[str] | None = None) -> Listing:
    """Lists a folder of class folders, or a flat folder of images.

    Args:
        root: The folder.
        class_names: Names of the network's classes, after which the folders are called. None numbers the class
            folders in sorted order.

    Raises:
        DataError: If the folder does not exist, holds no images, holds images beside class folders, or a class
            folder's name is no class of the network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("dog", "cat"):
        ...         Path(folder, name).mkdir()
        ...         Path(folder, name, "a.jpg").touch()
        ...     listing = list_folder(folder, ["dog", "bird", "cat"])
        >>> [(listing.path(k), int(listing.labels[k])) for k in range(2)]
        [('cat/a.jpg', 2), ('dog/a.jpg', 0)]
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"The image folder {root} {'is not a folder' if root.exists() else 'does not exist'}.")
    folders = class_folders(root)
    loose = list_files(root)
    if len(loose) and folders:
        raise DataError(
            f"{root} holds images ({os.fsdecode(loose[0].as_py())}, ...) beside folders ({folders[0]}, ...). It should "
            "hold either one folder for each class, or images alone."
        )
    if len(loose):
        return Listing(root, loose, np.full(len(loose), -1), np.zeros(len(loose), bool))
    files = [list_files(root, folder) for folder in folders]
    if not any(len(names) for names in files):
        raise DataError(
            f"{root} holds no images: neither {root}/*.JPEG nor {root}/CLASS/*.JPEG. If the images lie deeper, name "
            "the folder right above the class folders."
        )
    # Every folder is matched, also an empty one: a wrong root should be noticed.
    labels = list(range(len(folders))) if class_names is None else ClassTable(class_names).of_folders(folders)
    sizes = [len(names) for names in files]
    # Round the classes: by the position in the class, and within a position by the class.
    order = np.argsort(np.concatenate([np.arange(size) for size in sizes]), kind="stable")
    paths = pa.concat_arrays(files).take(pa.array(order))
    return Listing(root, paths, np.repeat(labels, sizes)[order], np.zeros(len(order), bool))


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


def hash_files(root: Path, extensions: Collection[str]) -> tuple[int, str]:
    """How many files of these extensions lie in ``root`` and in the folders in it, and a hash of their names."""
    sha256, n = hashlib.sha256(), 0
    for folder in ("", *class_folders(root)):
        names = list_files(root, folder, extensions)
        _hash_names(sha256, names)
        n += len(names)
    return n, sha256.hexdigest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # a dangling link is listed too
        return None


def _hash_names(sha256: Any, names: pa.Array) -> None:
    for start in range(0, len(names), _CHUNK):
        for name in names.slice(start, _CHUNK).to_pylist():
            sha256.update(name + b"\0")


def printable(path: str | bytes) -> str:
    """The path as valid Unicode: bytes that are not UTF-8 are written as escapes (``\\xff``)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
