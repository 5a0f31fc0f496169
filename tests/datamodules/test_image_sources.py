from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image

from datamodules import DataError, DecodingError, ImageSourcesDataModule, decode_image
from datamodules.image_sources import download


def png(color: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), color).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        try:
            if self.path == "/image":
                self.wfile.write(png())
            elif self.path == "/text":
                self.wfile.write(b"<html>not an image</html>")
            elif self.path == "/endless":
                while True:
                    self.wfile.write(bytes(100_000))
            elif self.path == "/dripping":
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
        except OSError:
            pass  # the client had enough

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_image(server: str) -> None:
    assert decode_image(download(f"{server}/image")).size == (20, 10)


@pytest.mark.parametrize(
    ("path", "message"),
    [("missing", "404"), ("endless", "larger than 1,000,000 bytes"), ("dripping", r"longer than 0\.5 seconds")],
)
def test_refused(server: str, path: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(DecodingError, match=message):
        download(f"{server}/{path}", max_bytes=1_000_000, timeout=0.5)
    assert time.monotonic() - start < 5


def test_an_address_of_an_object_store() -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/red.png", png())
    data = ImageSourcesDataModule(["memory://bucket/red.png", "memory://bucket/none.png"])
    batch = next(iter(data.predict_dataloader()))
    assert batch["path"] == ["memory://bucket/red.png"]
    assert torch.equal(batch["image"][0, :, 112, 112], torch.tensor([255, 0, 0], dtype=torch.uint8))
    assert batch["failed"][0][1] == "memory://bucket/none.png cannot be read: there is no such file."


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/x", "http://", "https://[/x"])
def test_unreachable(address: str) -> None:
    with pytest.raises(DecodingError, match="cannot be fetched"):
        download(address, timeout=2)


def expanded(*sources: object) -> list[str]:
    return ImageSourcesDataModule(list(sources)).sources  # type: ignore[arg-type]


def test_folders_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("a/b/1.png", "a/2.JPG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(png())
    sources = expanded(tmp_path, "one.png", "http://host/x")
    assert [s.removeprefix(f"{tmp_path}/") for s in sources] == ["a/2.JPG", "a/b/1.png", "one.png", "http://host/x"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no images"):
        expanded(tmp_path / "empty")


def test_failures_are_reported_and_the_rest_goes_on(server: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    sources = [str(tmp_path / "1.png"), f"{server}/text", f"{server}/image", str(tmp_path / "nowhere.png")]
    (batch,) = ImageSourcesDataModule(sources, input_size=32, resize_size=40).predict_dataloader()
    assert batch["path"] == [sources[0], sources[2]]
    assert [path for path, _ in batch["failed"]] == [sources[1], sources[3]]
    assert batch["image"].shape == (2, 3, 32, 32)


def test_an_empty_name_is_not_the_folder_where_one_stands() -> None:
    assert expanded("") == [""]
