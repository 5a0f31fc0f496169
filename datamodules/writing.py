"""Files and folders that are either whole or not there, and errors that name them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file or folder to, which takes its place at the end of the block.

    A process that dies meanwhile, and a machine that loses power, leave ``path`` as it was. What they leave aside is
    hidden: readers of a folder pass it over. If the block raises, what was written is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _delete(aside)  # of a killed process that had the same number
    try:
        with naming(path):
            yield aside
            if aside.is_file():
                with aside.open("rb") as file:
                    os.fsync(file.fileno())
            aside.replace(path)
    finally:
        _delete(aside)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Lets the file system's errors, such as of a full disk, name what was being written, if they name nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def unfinished(path: Path) -> list[Path]:
    """What other processes are writing in order to take the place of ``path``, or were when they were killed."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    written = re.compile(re.escape(f".{path.name}.") + r"\d+\.tmp")
    return sorted(each for each in beside if written.fullmatch(each.name))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
