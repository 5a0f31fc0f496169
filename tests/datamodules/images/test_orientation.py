from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from datamodules import decode_image
from datamodules.images.decode import read_image
from tests.tiffs import tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}}


def encoded(orientation: object, name: str = "PNG", **options: object) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, name, exif=exif, **options)
    return content.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", LOSSLESS)
def test_it_equals_pillows_transpose(name: str, orientation: int) -> None:
    content = encoded(orientation, name, **LOSSLESS[name])
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    found = read_image(content, exif_orientation=True)
    assert (found.orientation, found.is_turned) == (orientation, orientation > 1)
    np.testing.assert_array_equal(np.asarray(found.image), expected)
    as_it_lies = read_image(content)
    assert (as_it_lies.orientation, as_it_lies.is_turned) == (orientation, False)
    np.testing.assert_array_equal(np.asarray(as_it_lies.image), PIXELS)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpeg_of_any_mode(mode: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(content, "JPEG", exif=exif)
    image = decode_image(content.getvalue())
    turned = decode_image(content.getvalue(), exif_orientation=True)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not(orientation: int) -> None:
    assert read_image(encoded(orientation), exif_orientation=True)[1:] == (1, False, None)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0broken",
        b"Exif\0\0II*\0\xff\xff\xff\xffbroken",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\x006\0\0\0",  # the text "6"
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x09\0\0\0\xff\xff\0\0",  # nine numbers beyond the end
        b"Exif\0\0",
    ],
    ids=["no TIFF", "no directory", "text", "beyond the end", "nothing"],
)
@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
def test_broken_exif_is_no_failure(exif: bytes, is_on: bool) -> None:
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "JPEG", exif=exif)
    found = read_image(content.getvalue(), is_on)
    assert (found.image.size, found.orientation, found.is_turned) == ((7, 5), 1, False)


@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
def test_broken_elsewhere_than_in_the_orientation(is_on: bool) -> None:
    """Pillow's transpose writes all EXIF anew, of which it cannot write everything that it reads."""
    entries = b"\x02\0" + b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0" + b"\x9b\x82\x05\0\x01\0\0\0\xff\xff\0\0"
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + entries + b"\0" * 4)
    found = read_image(content.getvalue(), is_on)
    assert (found.image.size, found.orientation, found.is_turned) == ((5, 7) if is_on else (7, 5), 6, is_on)


@pytest.mark.parametrize("is_on", [False, True], ids=["off", "on"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_tiffs_are_turned_in_any_case(orientation: int, is_on: bool) -> None:
    """By Pillow, and so in torchvision's loader."""
    found = read_image(tiff(PIXELS, 8, orientation=orientation), is_on)
    assert (found.orientation, found.is_turned) == (orientation, True)
    np.testing.assert_array_equal(np.asarray(found.image), np.rot90(PIXELS, {3: 2, 6: -1}[orientation]))


def test_an_image_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(Image, "open", lambda source, _open=Image.open: opened.append(1) or _open(source))
    assert read_image(encoded(6), exif_orientation=True).is_turned
    assert opened == [1]
