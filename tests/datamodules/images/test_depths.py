from __future__ import annotations

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datamodules import DecodingError
from datamodules.images.decode import Decoded, read_image
from datamodules.images.depths import BEYOND, DIM
from tests.tiffs import BIG, LITTLE, tiff

ORDERS = pytest.mark.parametrize("order", [LITTLE, BIG], ids=["little", "big"])
DEFLATED = pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
PLANES = pytest.mark.parametrize("planes", [False, True], ids=["together", "planes"])
RNG = np.random.default_rng(0)


def grey(most: int) -> np.ndarray:
    """All of the range, in rows of an odd length."""
    return np.append(RNG.integers(0, most + 1, 61), [0, most]).reshape(7, 9)


def colours(most: int, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, most + 1, (7, 9, channels))


def scaled(values: np.ndarray, most: int) -> np.ndarray:
    """``(H, W)`` or ``(H, W, 3)`` from 0 to ``most`` as RGB of 8 bits; no value of ours lies halfway."""
    levels = np.rint(values.astype(np.float64) * 255 / most)
    return np.stack([levels] * 3, -1) if levels.ndim == 2 else levels


def check(found: Decoded, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(found.image), expected)
    assert found.note is None


def refused(content: bytes, message: str) -> None:
    with pytest.raises(DecodingError, match=re.escape(message)):
        read_image(content)


def saved(image: Image.Image, name: str) -> bytes:
    content = io.BytesIO()
    image.save(content, name)
    return content.getvalue()


NOT_READ = (
    "a TIFF that is damaged, or whose pixels are of a kind that is not read; save it as grey or RGB, with 8 or 16"
)


class TestGreyTiffs:
    @ORDERS
    @DEFLATED
    @pytest.mark.parametrize("photometric", [0, 1], ids=["0 is white", "0 is black"])
    @pytest.mark.parametrize(
        ("bits", "max_value", "most"),
        [
            (12, None, 4095),
            (12, 1023, 1023),
            (12, 65535, 4095),
            (16, None, 65535),
            (16, 65535, 65535),
            (16, 4095, 4095),
            (16, 255, 255),
            (16, 16383, 16383),
            (16, 60000, 65535),  # the largest that happens to be there
        ],
    )
    def test_scaled_by_what_the_file_says(
        self, bits: int, max_value: int | None, most: int, photometric: int, order: str, deflated: bool
    ) -> None:
        """Some kinds Pillow does not read, which are refused; nothing is scaled wrong."""
        values = grey(most)
        content = tiff(values, bits, order, photometric, max_value=max_value, deflated=deflated)
        if (bits, order, photometric) in {(12, BIG, 0), (12, BIG, 1), (12, LITTLE, 0), (16, BIG, 0)}:
            refused(content, NOT_READ)
        else:
            check(read_image(content), scaled(most - values if photometric == 0 else values, most))

    @ORDERS
    @DEFLATED
    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_one_plane(self, bits: int, order: str, deflated: bool) -> None:
        """Which is the same as none; Pillow forgets that it is deep."""
        values = grey(2**bits - 1)
        content = tiff(values, bits, order, planes=True, deflated=deflated)
        if (bits, order) == (12, BIG):
            refused(content, NOT_READ)
        elif bits > 8 and not deflated:
            refused(content, f"{bits}-bit channels in planes are not read; save the image with 8 bits a channel")
        else:
            check(read_image(content), scaled(values, 2**bits - 1))

    @pytest.mark.parametrize("largest", [1, 1023, 4095, 16383])
    def test_words_that_may_hold_fewer_bits_are_refused(self, largest: int) -> None:
        values = grey(largest)
        refused(tiff(values), DIM)
        check(read_image(tiff(values, max_value=65535)), scaled(values, 65535))

    @pytest.mark.parametrize("largest", [0, 16384, 65535])
    def test_words_that_use_their_range_are_not(self, largest: int) -> None:
        values = grey(largest)
        check(read_image(tiff(values)), scaled(values, 65535))

    def test_a_range_that_is_not_true(self) -> None:
        refused(tiff(grey(5000), max_value=4095), BEYOND)

    def test_of_8_bits_it_is_a_mere_statistic(self) -> None:
        values = grey(127)
        check(read_image(tiff(values, 8, max_value=127)), scaled(values, 255))


class TestColourTiffs:
    @ORDERS
    @DEFLATED
    @PLANES
    @pytest.mark.parametrize("channels", [3, 4])
    def test_all_of_the_range(self, channels: int, planes: bool, deflated: bool, order: str) -> None:
        """The high byte, as torchvision's loader takes it."""
        values = colours(65535, channels)
        values[..., 3:] |= 1 << 15  # nothing is transparent
        extra = 2 if channels == 4 else None
        content = tiff(values, 16, order, 2, extra=extra, planes=planes, deflated=deflated)
        if planes and not deflated:
            refused(content, "16-bit channels in planes are not read")
        else:
            check(read_image(content), values[..., :3] >> 8)

    @pytest.mark.parametrize("most", [255, 4095, 32767])
    @pytest.mark.parametrize(
        "options", [{}, {"extra": 2}, {"order": BIG, "deflated": True}, {"photometric": 5}], ids=str
    )
    def test_less_of_the_range_is_refused(self, most: int, options: dict[str, Any]) -> None:
        values = colours(most, 3 if options.keys() < {"order", "deflated", "x"} else 4)
        refused(
            tiff(values, max_value=most, **options), f"only values to {most} are used (MaxSampleValue); save it with 8"
        )

    def test_words_that_may_hold_fewer_bits_are_refused(self) -> None:
        values = colours(4095)
        refused(tiff(values), DIM)
        check(read_image(tiff(values, max_value=65535)), values >> 8)

    def test_alpha_is_no_colour(self) -> None:
        values = colours(4095, 4)
        values[..., 3] = 65535
        refused(tiff(values, extra=2), DIM)


class TestOtherFormats:
    def test_png(self) -> None:
        values = grey(65535)
        check(read_image(saved(Image.fromarray(values.astype(np.uint16)), "PNG")), scaled(values, 65535))
        refused(saved(Image.fromarray(grey(4095).astype(np.uint16)), "PNG"), DIM)

    @pytest.mark.parametrize("most", [4095, 65535])
    def test_png_of_16_bit_colours(self, most: int) -> None:
        """Which no library at hand writes: a header, and rows without a filter."""
        values = colours(most)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 9, 7, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
            for name, part in parts
        )
        if most == 4095:
            refused(content, DIM)
        else:
            check(read_image(content), values >> 8)

    @pytest.mark.parametrize("most", [255, 256, 1023, 4095, 65535])
    @pytest.mark.parametrize("magic", [b"P2", b"P5"], ids=["text", "bytes"])
    def test_pgm(self, magic: bytes, most: int) -> None:
        """The header tells the range, so nothing is in doubt of a dark one."""
        values = grey(most) // 5
        raw = values.astype(">u2" if most > 255 else "u1").tobytes()
        text = " ".join(map(str, values.ravel())).encode()
        content = magic + b"\n9 7\n%d\n" % most + (text if magic == b"P2" else raw)
        found = read_image(content)
        assert np.abs(np.asarray(found.image) - scaled(values, most)).max() <= 1  # Pillow rounds to 16 bits first
        assert found.note is None

    def test_jpeg_2000(self) -> None:
        values = grey(65535)
        check(read_image(saved(Image.fromarray(values.astype(np.uint16)), "JPEG2000")), scaled(values, 65535))

    def test_fits_is_signed(self) -> None:
        cards = ["SIMPLE  =                    T", "BITPIX  =                   16", "NAXIS   =                    2"]
        cards += ["NAXIS1  =                    9", "NAXIS2  =                    7", "END"]
        header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
        with pytest.raises(DecodingError, match="the 16-bit integer FITS pixels have no known range"):
            read_image(header + grey(65535).astype(">u2").tobytes())


@ORDERS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_format": 2, "bits": 8}, "signed 8-bit integer pixels have no known range"),
        ({"sample_format": 2}, "signed 16-bit integer pixels have no known range"),
        ({"sample_format": 2, "bits": 32}, "signed 32-bit integer pixels have no known range|a TIFF that is"),
        ({"bits": 32}, "32-bit integer pixels have no known range|a TIFF that is damaged, or whose pixels are"),
    ],
)
def test_integers_of_unknown_range(options: dict[str, Any], message: str, order: str) -> None:
    with pytest.raises(DecodingError, match=f"({message}).*save"):
        read_image(tiff(grey(100), order=order, **options))


@ORDERS
@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)], ids=["grey", "colours"])
def test_floats(shape: tuple[int, ...], bits: int, order: str) -> None:
    message = "floating-point pixels have no known range|a TIFF that is damaged, or whose pixels are of a kind"
    with pytest.raises(DecodingError, match=message):
        read_image(tiff(RNG.random(shape), bits, order, sample_format=3))


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_grey_with_alpha(extra: int) -> None:
    values = np.dstack([grey(255), np.full((7, 9), 255)])
    check(read_image(tiff(values, 8, extra=extra)), scaled(values[..., 0], 255))
