"""Names of what lies in a folder, of which there may be a million, and what of it is no image."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.errors import DataError, printable, some
from datamodules.images.formats import begins_as_image, extension_of, image_extensions, is_something_else
from datamodules.source import each_name

_CHUNK = 1 << 12
"""So many names at most are Python objects at a time: a million of them would take a hundred megabytes."""

_NO_NAMES = pa.array([], pa.large_binary())

_OF_THE_SYSTEM = frozenset(
    (
        *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
        *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot"),
    )
)
"""What Finder, Windows, and disks in a network leave behind, in lower case; hidden names begin with a dot."""


@dataclass
class LeftOut:
    """What lies in a folder and is no image, counted.

    Attributes:
        no_images: Files by their extensions, "" = none.
        of_the_system: Files and folders by their names, hidden ones and the system's.
        loops: Links, by their paths, that lead back to a folder that they lie in.
        repeats: Links, by their paths, to a folder that is listed below the same class folder already.
        dead_links: Links, by their paths, that lead nowhere; those that are called as images are failed ones.
        empty_folders: Folders without images that no class is called after, by their names.
    """

    no_images: Counter[str] = field(default_factory=Counter)
    of_the_system: Counter[str] = field(default_factory=Counter)
    loops: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    dead_links: list[str] = field(default_factory=list)
    empty_folders: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was left out, in sentences; [] = nothing.

        Example:
            >>> LeftOut(Counter({".txt": 10, ".csv": 2})).notes()
            ['12 files are no images: .txt 10, .csv 2']
        """
        found = []
        if n := self.no_images.total():
            named = {name or "without an extension": count for name, count in self.no_images.items()}
            found.append(f"{_files(n)} no image{'s' * (n > 1)}: {_counted(Counter(named))}")
        if n := self.of_the_system.total():
            found.append(f"{n} hidden or of the system, not looked into: {_counted(self.of_the_system)}")
        if n := len(self.loops):
            found.append(f"{n} link{'s' * (n > 1)} to a folder above, not followed: {some(sorted(self.loops))}")
        if n := len(self.repeats):
            found.append(f"{n} link{'s' * (n > 1)} to a folder listed already: {some(sorted(self.repeats))}")
        if n := len(self.dead_links):
            found.append(f"{n} link{'s' * (n > 1)} to nowhere: {some(sorted(self.dead_links))}")
        if n := len(self.empty_folders):
            found.append(f"{n} folder{'s' * (n > 1)} without images, called after no class: {some(self.empty_folders)}")
        return found

    def as_clause(self) -> str:
        """The same, to stand behind a sentence that says that there are no images."""
        return "".join(f"; {note}" for note in self.notes())


def _files(n: int) -> str:
    return f"{n:,} files are" if n > 1 else "1 file is"


def _counted(counts: Counter[str], most: int = 8) -> str:
    shown = [f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    return some(shown, most)


def is_of_the_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system: never an image, never a class."""
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def images_below(root: Path, folder: str, left_out: LeftOut) -> pa.Array:
    """Paths, relative to ``root``, of the images in ``root/folder`` and in the folders in it, as sorted bytes.

    Links are followed. What looks like an image is one, whether it can be read or not: by its name or, where this does
    not say it, by its first bytes.

    Args:
        left_out: Everything else is counted there.

    Raises:
        DataError: If a folder cannot be read.
    """
    return _sorted(_each(root, folder, _is_image, left_out))


def holds_images(root: Path, folder: str = "") -> bool:
    """Whether there is an image in ``root/folder`` or in the folders in it."""
    return any(True for _ in _each(root, folder, _is_image, LeftOut()))


def loose_images(root: Path, left_out: LeftOut) -> pa.Array:
    """Those that lie in ``root`` itself; see :func:`images_below`."""
    return _sorted(_each(root, "", _is_image, left_out, depth=0))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; hidden ones and the system's are left out."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not is_of_the_system(entry.name))


def hash_files(root: Path, extension: str) -> tuple[int, str]:
    """How many files of an extension lie in ``root`` and in the folders in it, and a hash of their names."""

    def is_wanted(entry: os.DirEntry[bytes]) -> bool:
        return extension_of(entry.name) == extension

    names = _sorted(_each(root, "", is_wanted, LeftOut()))
    sha256 = hashlib.sha256()
    for name in each_name(names):
        sha256.update(name + b"\0")
    return len(names), sha256.hexdigest()


def _is_folder(entry: os.DirEntry[Any]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is no folder, nor a reason to stop
        return False


def _is_image(entry: os.DirEntry[bytes]) -> bool:
    extension = extension_of(entry.name)
    if extension in image_extensions():
        return True
    # A pipe would be waited for. What says that it is something else is not asked, of which there may be many.
    try:
        is_file = not is_something_else(extension) and entry.is_file()
    except OSError:  # a link to itself
        return False
    return is_file and begins_as_image(entry.path)


def _each(
    root: Path,
    folder: str,
    is_wanted: Callable[[os.DirEntry[bytes]], bool],
    left_out: LeftOut,
    depth: int | None = None,
    above: frozenset[tuple[int, int]] | None = None,
    seen: set[tuple[int, int]] | None = None,
) -> Iterator[bytes]:
    """Paths, relative to ``root``, of the files that are wanted, to any depth below ``root/folder`` or to so many."""
    here = os.fsencode(root / folder)
    prefix = os.fsencode(f"{folder}/" if folder else "")
    try:
        own = _identity(root / folder)
        if above is None:
            above = frozenset(map(_identity, [*([root] if folder else []), *root.resolve().parents]))
        if own in above:
            left_out.loops.append(printable(folder))
            return
        # Below a class folder each folder counts once: links to and fro would lead to every order of the folders.
        seen = set() if seen is None or "/" not in folder else seen
        if own in seen:
            left_out.repeats.append(printable(folder))
            return
        seen.add(own)
        folders = []
        with os.scandir(here) as entries:
            for entry in entries:
                name = os.fsdecode(entry.name)
                if is_of_the_system(name):
                    left_out.of_the_system[printable(name)] += 1
                elif _is_folder(entry):
                    folders.append(name)
                elif is_wanted(entry):
                    yield prefix + entry.name
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    left_out.dead_links.append(printable(prefix + entry.name))
                else:
                    left_out.no_images[printable(extension_of(name))] += 1
    except OSError as error:
        raise DataError(f"The folder {root / folder} cannot be read: {error.strerror}.") from error
    for name in sorted(folders) if depth is None or depth > 0 else []:
        deeper = None if depth is None else depth - 1
        path = os.fsdecode(prefix) + name
        if is_wanted is _is_image and extension_of(name) in image_extensions() and not holds_images(root, path):
            yield os.fsencode(path)  # which is looked for as an image, and fails as one
            continue
        yield from _each(root, path, is_wanted, left_out, deeper, above | {own}, seen)


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from others, by whatever links it was reached."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _sorted(names: Iterable[bytes]) -> pa.Array:
    names = iter(names)
    chunks = iter(lambda: pa.array(itertools.islice(names, _CHUNK), pa.large_binary()), _NO_NAMES)
    return pa.concat_arrays([_NO_NAMES, *chunks]).sort()
