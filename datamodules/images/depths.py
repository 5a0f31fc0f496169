"""Pixels of any depth -> 8-bit RGB, by the range that the file names; refused where nobody can know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from datamodules.errors import DecodingError

DIM = (
    "no 16-bit pixel reaches a quarter of the range, and the file names no smaller one: it may be dark, or hold fewer "
    "bits; save it with 8 bits a channel"
)
BEYOND = (
    "pixels lie beyond the largest value that the file names (MaxSampleValue); save the image with 8 bits a channel"
)

_BITS, _COMPRESSION, _PHOTOMETRIC, _MAX_VALUE, _PLANES, _FORMAT = 258, 259, 262, 281, 284, 339
_KINDS = {2: "signed {}-bit integer", 3: "{}-bit floating-point"}
_UNSIGNED = ("TIFF", "PNG", "PPM", "JPEG2000")
"""Formats of which Pillow's 16-bit pixels are unsigned, from 0 to 65535. Those of FITS, for one, are not."""


def to_rgb(image: Image.Image, head: bytes) -> Image.Image:
    """An opened image, not loaded yet, as 8-bit RGB.

    Grayscale of 9 to 16 bits is scaled and rounded; colours of 16 bits keep their high byte, as torchvision's loader
    does. The range is that of TIFF's BitsPerSample, or of MaxSampleValue where that is one less than a power of two
    (others are a mere statistic), or that in the header of a PGM.

    Args:
        image: The image.
        head: How its file begins.

    Raises:
        DecodingError: If nobody can know the range: of signed, floating-point and 32-bit pixels, of 16 bits of which a
            quarter is used, of colours that use fewer bits than they have.
    """
    tags: Mapping[int, Any] = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    is_png = head.startswith(b"\x89PNG")
    bits = (head[24] if is_png else _single(tags.get(_BITS, 8))) or 8
    _refuse_unknown_range(image, tags, bits)
    named = _single(tags.get(_MAX_VALUE))
    if named is not None and (named < 2**8 - 1 or (named + 1) & named):
        named = None
    if image.mode.startswith("I"):
        return _grey(image, tags, named, bits)
    if bits == 16:
        _refuse_part_of_range(image, named)
    if image.mode == "La":  # Pillow takes this step, but no other, from premultiplied grey
        image = image.convert("LA")
    return image.convert("RGB")


def _refuse_unknown_range(image: Image.Image, tags: Mapping[int, Any], bits: int) -> None:
    formats = tags.get(_FORMAT, 1)
    kinds = [_KINDS[number] for number in (formats if isinstance(formats, tuple) else (formats,)) if number in _KINDS]
    if kinds:
        kind = kinds[0].format(bits)
    elif image.mode == "F":
        kind = "floating-point"
    elif image.mode == "I" and image.format != "PPM":
        kind = "32-bit integer"
    elif image.mode.startswith("I;16") and image.format not in _UNSIGNED:
        kind = f"the 16-bit integer {image.format}"
    elif bits > 8 and tags.get(_PLANES) == 2 and tags.get(_COMPRESSION, 1) == 1:
        # Pillow takes these for 8 bits.
        raise DecodingError(f"{bits}-bit channels in planes are not read; save the image with 8 bits a channel")
    else:
        return
    raise DecodingError(f"{kind} pixels have no known range; save the image with 8 or 16 bits a channel")


def _grey(image: Image.Image, tags: Mapping[int, Any], named: int | None, bits: int) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)
    largest, most = int(values.max()), 65535
    if image.format == "TIFF" and bits < 16:
        most = 2**bits - 1
    if named is not None and named <= most:
        if largest > named:
            raise DecodingError(BEYOND)
        most = named
    elif image.format != "PPM" and most == 65535 and 0 < largest < 2**14:  # of a PGM the header names the range
        raise DecodingError(DIM)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white, which Pillow heeds only in 8 bits
        values = most - values
    return Image.fromarray(((values * 255 + most // 2) // most).astype(np.uint8)).convert("RGB")


def _refuse_part_of_range(image: Image.Image, named: int | None) -> None:
    """Refuses colours of 16 bits, of which Pillow keeps the high byte, where that says little or nothing."""
    if named is not None and named < 65535:
        raise DecodingError(
            f"of its 16-bit colours only values to {named} are used (MaxSampleValue); save it with 8 bits a channel"
        )
    colours = [band for band in image.split() if image.mode not in ("RGBA", "LA", "RGBa", "La")] or image.split()[:-1]
    highest = max(int(band.getextrema()[1]) for band in colours)  # type: ignore[arg-type]
    if named is None and 0 < highest < 2**6:
        raise DecodingError(DIM)


def _single(value: Any) -> int | None:
    """The number that all channels have in common; None = there is none."""
    numbers = {each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, int)}
    return numbers.pop() if len(numbers) == 1 else None
