from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, features

from datamodules.images.decode import DecodingError, decode_image
from datamodules.images.formats import begins_as_image, image_extensions, is_something_else, openable, remedy

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
JXL = b"\xff\x0a" + b"\x7f" * 40
UNREADABLE_HERE = pytest.mark.skipif(".heic" in openable(), reason="pillow-heif is installed")


def test_everything_that_pillow_saves_and_opens_is_an_image() -> None:
    known = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".mpo"}
    assert known <= openable()
    assert (".avif" in openable()) == features.check("avif")
    assert ".jp2" in openable()
    # Which Pillow only writes, only recognizes, or hands to another program.
    assert not openable() & {".pdf", ".h5", ".mpg", ".eps", ".wmf"}


def test_what_looks_like_an_image_by_its_name() -> None:
    assert {".heic", ".jxl", ".nef", ".svg", ".avif", ".jpg"} <= image_extensions()
    assert not image_extensions() & {".txt", ".csv", ".xml", ".npy", ".pdf", ".mp4", ""}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_an_image_is_known_by_how_it_begins(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (5, 4)).save(tmp_path / "no_extension", kind)
    assert begins_as_image(tmp_path / "no_extension")


@pytest.mark.parametrize("content", [b"", b"P5 is a road", b"BMW builds cars " * 9, b"\0" * 64, b"II*\0", b"GIF"])
def test_what_begins_otherwise_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert not begins_as_image(tmp_path / "x")
    assert not begins_as_image(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [HEIC, JXL], ids=["heic", "jxl"])
def test_images_that_cannot_be_read_are_known_too(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert begins_as_image(tmp_path / "x")


@UNREADABLE_HERE
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.heic", HEIC, "pip install pillow-heif"),
        ("a.jpg", HEIC, "pip install pillow-heif"),  # as telephones name them
        ("a.HEIC", b"nothing of the kind", "pip install pillow-heif"),
        ("a.jxl", JXL, "pip install pillow-jxl-plugin"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a drawing without pixels; save it as PNG"),
        ("a.jpg", b"nothing", "not an image in a known format"),
        ("a.heic", b"", "the file is empty"),
    ],
)
def test_the_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DecodingError, match=message):
        decode_image(tmp_path / name)


def test_the_content_decides_whether_it_can_be_read(tmp_path: Path) -> None:
    Image.new("RGB", (5, 4), "red").save(tmp_path / "a.heic", "PNG")
    assert decode_image(tmp_path / "a.heic").getpixel((0, 0)) == (255, 0, 0)


def test_of_a_raw_file_not_its_preview(tmp_path: Path) -> None:
    """A camera's raw file begins as a TIFF, of a thumbnail."""
    Image.new("RGB", (16, 12), "red").save(tmp_path / "a.NEF", "TIFF")
    with pytest.raises(DecodingError, match="raw file, of which only the preview"):
        decode_image(tmp_path / "a.NEF")


def test_words_of_remedies() -> None:
    assert remedy("a.jpg") is None
    assert remedy("a.txt") is None
    assert "export it as PNG" in str(remedy("a.txt", b"gimp xcf file"))
    assert all(is_something_else(x) for x in (".xml", ".json", ".tar", ".gz", ".mp4"))
    assert not any(is_something_else(x) for x in (".npy", ".jpg_large", ""))
