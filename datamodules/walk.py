"""Names of what lies in a folder, of which there may be a million, and what of it is no image."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from datamodules.errors import DataError, printable, some
from datamodules.images.formats import begins_as_image, extension_of, image_extensions, is_something_else
from datamodules.source import chunked

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
    """What lies in a folder and is no image: for each reason the names, or extensions, and how often each."""

    names: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, reason: str, name: str | bytes) -> None:
        self.names[reason][printable(name)] += 1

    def notes(self) -> list[str]:
        """What was left out, in sentences; [] = nothing.

        Example:
            >>> LeftOut({"files are no images": Counter({".txt": 10, ".csv": 2})}).notes()
            ['12 files are no images: .txt 10, .csv 2']
        """
        notes = []
        for reason, counts in sorted(self.names.items()):
            frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            names = [(name or "without an extension") + f" {n:,}" * (n > 1) for name, n in frequent]
            notes.append(f"{counts.total():,} {reason}: {some(names, 8)}")
        return notes

    def as_clause(self) -> str:
        """The same, to stand behind a sentence that says that there are no images."""
        return "".join(f"; {note}" for note in self.notes())


def is_of_the_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a system: never an image, never a class."""
    return name.startswith(".") or name.lower() in _OF_THE_SYSTEM


def images_below(root: Path, left_out: LeftOut) -> pa.Array:
    """Paths, relative to ``root``, of the images in it and in the folders in it, as sorted bytes.

    Links are followed. What looks like an image is one, whether it can be read or not: by its name or, where this does
    not say it, by its first bytes.

    Args:
        left_out: Everything else is counted there.

    Raises:
        DataError: If a folder cannot be read.
    """
    chunks = (pa.array(names, pa.large_binary()) for names in chunked(_each(root, left_out)))
    return pa.concat_arrays([pa.array([], pa.large_binary()), *chunks]).sort()


def holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder or in the folders in it."""
    return any(True for _ in _each(folder, LeftOut()))


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; hidden ones and the system's are left out."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not is_of_the_system(entry.name))


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
        return not is_something_else(extension) and entry.is_file() and begins_as_image(entry.path)
    except OSError:  # a link to itself
        return False


def _each(
    root: Path,
    left_out: LeftOut,
    folder: bytes = b"",
    above: frozenset[tuple[int, int]] | None = None,
    seen: set[tuple[int, int]] | None = None,
) -> Iterator[bytes]:
    """Paths, relative to ``root``, of the images in ``root/folder`` and in the folders in it."""
    here = os.path.join(os.fsencode(root), folder)
    prefix = folder and folder + b"/"
    try:
        own = _identity(here)
        above = frozenset(map(_identity, root.resolve().parents)) if above is None else above
        # Below a class folder each folder counts once: links to and fro would lead to every order of the folders.
        seen = set() if seen is None or b"/" not in folder else seen
        if own in above | seen:
            left_out.add(f"links to a folder {'above, not followed' if own in above else 'listed already'}", folder)
            return
        seen.add(own)
        folders = []
        with os.scandir(here) as entries:
            for entry in entries:
                if is_of_the_system(os.fsdecode(entry.name)):
                    left_out.add("hidden or of the system, not looked into", entry.name)
                elif _is_folder(entry):
                    folders.append(prefix + entry.name)
                elif _is_image(entry):
                    yield prefix + entry.name
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    left_out.add("links to nowhere", prefix + entry.name)
                else:
                    left_out.add("files are no images", extension_of(entry.name))
    except OSError as error:
        raise DataError(f"The folder {printable(here)} cannot be read: {error.strerror}.") from error
    for path in sorted(folders):
        if extension_of(path) in image_extensions() and not holds_images(root / os.fsdecode(path)):
            yield path  # which is looked for as an image, and fails as one
        else:
            yield from _each(root, left_out, path, above | {own}, seen)


def _identity(folder: str | bytes | Path) -> tuple[int, int]:
    """What tells a folder from others, by whatever links it was reached."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
