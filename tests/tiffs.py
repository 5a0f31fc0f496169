"""TIFF files of kinds that no library at hand writes: 12 bits, other byte orders, tags that say what is white."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

LITTLE, BIG = "<", ">"


def tiff(
    values: np.ndarray,
    bits: int = 16,
    order: str = LITTLE,
    photometric: int | None = None,
    *,
    max_value: int | None = None,
    orientation: int | None = None,
    sample_format: int | None = None,
    extra: int | None = None,
    planes: bool = False,
    deflated: bool = False,
) -> bytes:
    """A TIFF in one strip, or one strip a plane.

    Args:
        values: Integers or floats ``(H, W)`` or ``(H, W, C)``; what of them does not fit in ``bits`` is lost.
        bits: Of a sample.
        order: Of the bytes.
        photometric: What the numbers mean: 0 = 0 is white, 1 = 0 is black, 2 = RGB, 5 = CMYK. None = 1 or 2.
        max_value: MaxSampleValue.
        orientation: Orientation.
        sample_format: SampleFormat: 1 = unsigned, 2 = signed, 3 = floating-point.
        extra: What the last channel means: 0 = anything, 1 = premultiplied alpha, 2 = alpha.
        planes: Whether each channel lies by itself.
        deflated: Whether the strips are compressed.
    """
    values = values[:, :, None] if values.ndim == 2 else values
    height, width, channels = values.shape
    photometric = (1 if channels < 3 else 2) if photometric is None else photometric
    parts = [values[:, :, [k]] for k in range(channels)] if planes else [values]
    strips = [packed(part.reshape(height, -1), bits, order) for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    offsets = [8 + sum(map(len, strips[:k])) for k in range(len(strips))]
    tags: dict[int, tuple[str, Sequence[int]]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [bits] * channels), 259: ("H", [8 if deflated else 1]),
        262: ("H", [photometric]), 273: ("I", offsets), 277: ("H", [channels]), 278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]), 284: ("H", [2 if planes else 1]),
    }  # fmt: skip
    for tag, given in ((274, orientation), (338, extra)):
        if given is not None:
            tags[tag] = "H", [given]
    for tag, given in ((281, max_value), (339, sample_format)):
        if given is not None:
            tags[tag] = "H", [given] * channels
    content = b"".join(strips)
    content += b"\0" * (len(content) % 2)
    start = 8 + len(content)
    return (
        struct.pack(f"{order}2sHI", b"II" if order == LITTLE else b"MM", 42, start) + content + ifd(tags, order, start)
    )


def ifd(tags: dict[int, tuple[str, Sequence[int]]], order: str, start: int) -> bytes:
    """The directory of tags, which lies at ``start``, and after it the values that have no room in it."""
    entries, beyond = b"", b""
    after = start + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        held = struct.pack(f"{order}{len(numbers)}{kind}", *numbers)
        if len(held) > 4:
            place = struct.pack(f"{order}I", after + len(beyond))
            beyond += held
        else:
            place = held.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + place
    return struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4 + beyond


def packed(rows: np.ndarray, bits: int, order: str) -> bytes:
    """Rows of samples as bytes; those of 12 bits lie without gaps, and each row begins with a byte."""
    if rows.dtype.kind == "f":
        return rows.astype(f"{order}f{bits // 8}").tobytes()
    if bits != 12:
        return rows.astype(f"{order}u{bits // 8}").tobytes()
    digits = (rows.astype(np.int64)[:, :, None] >> np.arange(11, -1, -1)) & 1
    return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
