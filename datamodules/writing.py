"""Files and folders that are either whole or not there."""

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

    It is hidden: a folder that a killed process leaves among folders of classes should not be read as one.

    If the block raises, what was written is deleted, and ``path`` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    _delete(aside)  # of a killed process that had the same number
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    finally:
        _delete(aside)


def unfinished(path: Path) -> list[Path]:
    """What other processes are writing in order to take the place of ``path``, or were when they were killed."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    written = re.compile(re.escape(f".{path.name}.") + r"\d+\.part")
    return sorted(each for each in beside if written.fullmatch(each.name))


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
