"""Files at addresses that fsspec knows (s3, gs, hf, https): what is there, and ranges of bytes, with patience."""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar

import fsspec
from fsspec.registry import known_implementations

from datamodules.errors import DataError, UnreachableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAITS = (1.0, 2.0, 4.0)
"""Seconds between attempts at what was not reached before: an address may be wrong ..."""
WAITS = (*FIRST_WAITS, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0)
"""... and at what was: a connection may come back."""

_BUFFER = 1 << 20
"""So many bytes of an open file are asked for at a time: the headers of small members come with their neighbours."""
AT_ONCE = 8
"""So many requests are under way."""
_AGAIN = (408, 425, 429)
"""HTTP's answers below 500 that may be another one later."""
_TAGS = ("ETag", "etag", "generation", "blob_id", "Content-MD5", "Last-Modified", "LastModified", "mtime", "created")
"""What file systems call that which changes with a file's content, the surest first."""
_BEGINS = slice(1, 512)
"""Not from the first byte on: a server without ranges could give that too."""


class StoredFile(NamedTuple):
    """A file on this machine or at an address: its size in bytes, and what changes with its content.

    That is its time here and its tag there, "" = nothing is known of it.
    """

    path: str
    size: int
    stamp: int | str

    @property
    def name(self) -> str:
        """The name of the file."""
        return os.path.basename(path_of(self.path))

    @property
    def is_remote(self) -> bool:
        return is_address(self.path)

    def open(self) -> BinaryIO:
        return io.BufferedReader(Reading(self), _BUFFER) if self.is_remote else open(self.path, "rb")

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to ``end``. Several threads may read at once.

        Raises:
            UnreachableError: See :func:`read_range`.
        """
        if self.is_remote:
            return read_range(self, start, end)
        # Opened anew each time: a process may have few files open, and there may be thousands of shards.
        with open(self.path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), end - start, start)


def is_address(place: object) -> bool:
    """Whether it is an address, or a list of them with :: between, and no path of this machine."""
    return "://" in str(place)


def no_folder(address: str) -> DataError:
    """The error of an address at which something else than tar shards is looked for."""
    return DataError(
        f"{address} is an address, and at addresses only tar shards are read, such as "
        "'https://host/val/{00000..00049}.tar'. Pack a folder of images where it lies (scripts/pack_shards.py), or "
        "mount it (mount-s3, gcsfuse, rclone mount)."
    )


def path_of(address: str) -> str:
    """An http(s) address without what follows its path, such as a signature; all else as it is."""
    return re.split("[?#]", address, maxsplit=1)[0] if _is_http(address) else address


def beside(address: str, name: str) -> str:
    """The address, or the path on this machine, of a file in the same folder."""
    path = path_of(address)
    return os.path.join(os.path.dirname(path), name) + address[len(path) :]


def matching(pattern: str) -> list[str]:
    """The addresses that a pattern with ``*`` names, sorted; what has none stands for itself.

    Raises:
        UnreachableError: If that cannot be listed.
    """
    if "*" not in pattern:
        return [pattern]

    def found() -> list[str]:
        file_system, path = fsspec.url_to_fs(pattern)
        return sorted(file_system.unstrip_protocol(name) for name in file_system.glob(path))

    return _patiently(found, pattern, FIRST_WAITS)


def stored_file(path: str) -> StoredFile:
    """What is at a path of this machine, or at an address.

    Raises:
        UnreachableError: See :func:`remote_file`.
    """
    if is_address(path):
        return remote_file(path)
    status = os.stat(path)
    return StoredFile(path, status.st_size, status.st_mtime_ns)


def remote_file(address: str) -> StoredFile:
    """What is at an address.

    Raises:
        UnreachableError: If it cannot be read, is a web page, or is kept by a server that gives no ranges of it.
    """

    def looked_up() -> StoredFile:
        file_system, path = fsspec.url_to_fs(address)
        facts = file_system.info(path)
        if facts["type"] != "file":
            raise ValueError("it is a folder, of which only the shards can be read; name these")
        if facts.get("size") is None:
            raise ValueError("its server does not say how large it is")
        with file_system.open(path, "rb", block_size=_BUFFER, cache_type="none", size=facts["size"]) as file:
            if facts.get("mimetype") != "text/html":
                file.seek(_BEGINS.start)
                content = file.read(_BEGINS.stop - _BEGINS.start).lower()
        if facts.get("mimetype") == "text/html" or b"<html" in content or b"!doctype" in content:
            raise ValueError("a web page is there; a login or a proxy may stand before it")
        tag = next((str(facts[name]) for name in _TAGS if facts.get(name)), "")
        return StoredFile(address, facts["size"], tag)

    return _patiently(looked_up, address, FIRST_WAITS)


def small_content(address: str) -> bytes:
    """The whole content of a file; b"" = there is none, or it is not for us.

    Raises:
        UnreachableError: If nobody can say.
    """

    def read() -> bytes:
        file_system, path = fsspec.url_to_fs(address)
        try:
            return bytes(file_system.cat_file(path))
        except Exception as error:
            if _is_final(error):
                return b""
            raise

    return _patiently(read, address, FIRST_WAITS)


def read_range(file: StoredFile, start: int, end: int) -> bytes:
    """The bytes of a file at an address from ``start`` to ``end``.

    Raises:
        UnreachableError: If they cannot be had for minutes, or the file is no longer the same.
    """

    def read() -> bytes:
        file_system, path = fsspec.url_to_fs(file.path)
        headers = {"Accept-Encoding": "identity"}
        if (tag := str(file.stamp)).startswith('"'):  # not of one that only means alike
            headers["If-Match"] = tag
        options = {"headers": headers} if _is_http(file.path) else {}
        content = bytes(file_system.cat_file(path, start=start, end=end, **options))
        if len(content) != end - start:
            raise OSError(f"{len(content):,} bytes came instead of {end - start:,}")
        return content

    return _patiently(read, file.path, WAITS)


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _patiently(call: Callable[[], T], address: str, waits: Sequence[float]) -> T:
    """What a call gives, which is made again after each wait, if it fails for a reason that may pass."""
    for wait in (*waits, None):
        try:
            return call()
        except Exception as error:  # each file system raises its own, and its libraries theirs
            if _is_final(error) or wait is None:
                raise UnreachableError(f"{address} cannot be read: {_reason(error, address)}.") from error
            logger.warning("%s: %s; tried again in %g s.", address, _reason(error, address), wait)
            time.sleep(wait)
    raise AssertionError


def _status(error: BaseException) -> int:
    """HTTP's answer that an error stands for; 0 = none."""
    found = getattr(error, "status", None) or getattr(error.__cause__, "status", None)
    return found if isinstance(found, int) else 0


def _is_final(error: BaseException) -> bool:
    """Whether the same call would fail again."""
    if status := _status(error):
        return 400 <= status < 500 and status not in _AGAIN
    if isinstance(error, FileNotFoundError):  # as which fsspec passes on whatever happens to a server, as its cause
        return error.__cause__ is None
    return isinstance(error, PermissionError | ImportError | ValueError)


def _reason(error: BaseException, address: str) -> str:
    """What happened at an address, in words."""
    status = _status(error)
    if status == 412:
        return "it was replaced while it was being read"
    if status >= 500:
        return f"its server answers {status}"
    if status == 404 or (isinstance(error, FileNotFoundError) and error.__cause__ is None):
        return "there is no such file"
    if isinstance(error, ImportError):
        package = known_implementations[address.partition("://")[0]]["class"].partition(".")[0]
        return f"it takes another package: pip install {package} ({error})"
    if "range requests" in str(error):
        return "its server gives no parts of files (HTTP's range requests), and no image can be read without; copy it"
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().rstrip(".") or type(error).__name__


class Reading(io.RawIOBase):
    """A file at an address as one that is open."""

    def __init__(self, file: StoredFile) -> None:
        self.file = file
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + (0, self.place, self.file.size)[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        end = min(self.place + len(buffer), self.file.size)
        content = read_range(self.file, self.place, end) if end > self.place else b""
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)
