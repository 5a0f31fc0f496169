"""A small server of files, with the faults that servers, proxies and connections have."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves the files of a folder by ranges, as object stores do.

    Attributes:
        requests: Method, path and range of each request.
        n_refused: So many of the next requests for content are answered 503.
        n_given: So many requests for content are answered, and all others 503; None = all.
        n_dropped: Of so many of the next ones only a part comes before the connection ends.
        has_ranges: Whether parts of files are given.
        page: What is sent instead of any file, with status 200; None = nothing is.
        has_tags: Whether an ETag comes with a file.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[tuple[str, str, str]] = []
        self.n_refused = self.n_dropped = 0
        self.n_given: int | None = None
        self.has_ranges = self.has_tags = True
        self.page: bytes | None = None
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def refuses(self) -> bool:
        """Whether this request for content is to be refused."""
        with self.lock:
            if self.n_given is not None:
                self.n_given -= 1
        return self.took("n_refused") or (self.n_given is not None and self.n_given < 0)

    def took(self, name: str) -> bool:
        """Whether there is one more of these faults to come, which is then over."""
        with self.lock:
            left = getattr(self, name)
            setattr(self, name, max(0, left - 1))
            return left > 0


class _Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_content=False)

    def do_GET(self) -> None:
        self.answer(with_content=True)

    def answer(self, with_content: bool) -> None:
        wanted = self.headers.get("Range", "")
        self.server.requests.append((self.command, self.path, wanted))
        file = self.server.root / self.path.partition("?")[0].lstrip("/")
        if with_content and self.server.refuses():
            return self.send_error(503)
        if not file.is_file() and self.server.page is None:
            return self.send_error(404)
        content = file.read_bytes() if self.server.page is None else self.server.page
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        if self.headers.get("If-Match", tag) != tag:
            return self.send_error(412)
        n = len(content)
        if is_part := bool(wanted) and self.server.has_ranges and self.server.page is None:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(end) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(content) - 1}/{n}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/x-tar" if self.server.page is None else "text/html")
        if self.server.has_tags:
            self.send_header("ETag", tag)
        self.end_headers()
        if with_content and is_part and self.server.took("n_dropped"):
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif with_content:
            with suppress(OSError):  # the client had enough
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(root: Path) -> Iterator[FileServer]:
    """A server of a folder, which is gone afterwards."""
    with FileServer(root) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
