"""Pixels of any depth -> 8-bit RGB, by the range that the file says they have; what it does not say is told."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

from datamodules.errors import DecodingError

DIM = (
    "no 16-bit pixel reaches a quarter of the range, and the file does not say that fewer bits are used: it may be dark"
)
BEYOND = "pixels lie beyond the largest value that the file names (MaxSampleValue), and were read as of the full range"

_PHOTOMETRIC, _BITS, _MAX_VALUE, _PLANES, _FORMAT = 262, 258, 281, 284, 339
_KINDS = {2: "signed {}-bit integer", 3: "{}-bit floating-point"}
_UNSIGNED = ("TIFF", "PNG", "PPM", "JPEG2000")
"""Formats of which Pillow's 16-bit pixels are unsigned, from 0 to 65535. Those of FITS, for one, are not."""

# Pillow can unpack these, and misses them in its table: big-endian ones, and those where 0 is white.
for _key, _modes in {
    (b"MM", 1, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"II", 0, (1,), 1, (12,), ()): ("I;16", "I;12"),
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
}.items():
    TiffImagePlugin.OPEN_INFO.setdefault(_key, _modes)


def to_rgb(opened: ImageFile.ImageFile) -> tuple[Image.Image, str | None]:
    """An opened image, not loaded yet, as 8-bit RGB, and why its pixels may be others than meant; None = they are not.

    Grayscale of 9 to 16 bits is scaled and rounded. Colours of 16 bits keep their high byte, as torchvision's loader
    does, unless the file says that they use fewer bits; then they are scaled and rounded too. It says so by TIFF's
    BitsPerSample, by MaxSampleValue where that is one less than a power of two (others are a mere statistic), or in
    the header of a PGM.

    Raises:
        DecodingError: If the pixels are signed, floating-point or of 32 bits, whose range is unknown.
    """
    tags: Mapping[int, Any] = opened.tag_v2 if isinstance(opened, TiffImagePlugin.TiffImageFile) else {}
    _refuse_unknown_range(opened, tags)
    image: Image.Image = opened
    doubt = None
    if opened.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
        image, doubt = _grey(opened, tags)
    elif _is_deep(opened):
        image, doubt = _colours(opened, tags)
    if image.mode == "La":  # Pillow takes this step, but no other, from premultiplied grey
        image = image.convert("LA")
    return image.convert("RGB"), doubt


def _refuse_unknown_range(image: Image.Image, tags: Mapping[int, Any]) -> None:
    bits = _single(tags.get(_BITS, 8)) or 8
    kinds = [_KINDS[of] for of in _tuple(tags.get(_FORMAT, 1)) if of in _KINDS]
    if kinds:
        kind = kinds[0].format(bits)
    elif image.mode == "F":
        kind = "floating-point"
    elif image.mode == "I" and image.format != "PPM":
        kind = "32-bit integer"
    elif image.mode.startswith("I;16") and image.format not in _UNSIGNED:
        kind = f"the 16-bit integer {image.format}"
    else:
        return
    raise DecodingError(f"{kind} pixels have no known range; save the image with 8 or 16 bits a channel")


def _grey(image: ImageFile.ImageFile, tags: Mapping[int, Any]) -> tuple[Image.Image, str | None]:
    _mend_planes(image, tags)
    values = np.asarray(image).astype(np.uint32)
    if image.format == "PPM":  # whose header tells the range, to which Pillow has scaled
        most, doubt = 65535, None
    else:
        most, doubt = _range(tags, int(values.max()), 2 ** (_single(tags.get(_BITS, 16)) or 16) - 1)
    if tags.get(_PHOTOMETRIC) == 0:  # 0 is white, which Pillow heeds only in 8 bits
        values = most - values
    return Image.fromarray(_scaled(values, most)), doubt


def _colours(image: ImageFile.ImageFile, tags: Mapping[int, Any]) -> tuple[Image.Image, str | None]:
    told = _told(tags)
    if told is not None and told < 65535:
        values, mode = _sixteen_bits(image, tags)
        if int(values.max()) <= told:
            return Image.fromarray(_scaled(values, told), mode), None
        return Image.fromarray((values >> 8).astype(np.uint8), mode), BEYOND
    _mend_planes(image, tags)
    colours = np.asarray(image)
    if image.mode in ("RGBA", "LA"):
        colours = colours[..., :-1]
    return image, DIM if told is None and 0 < int(colours.max()) < 2**6 else None


def _range(tags: Mapping[int, Any], largest: int, most: int) -> tuple[int, str | None]:
    """The value that is white, and what is in doubt about it, of pixels up to ``largest`` that hold up to ``most``."""
    told = _told(tags)
    if told is not None and told <= most:
        return (told, None) if largest <= told else (most, BEYOND)
    return most, DIM if most == 65535 and 0 < largest < 2**14 else None


def _told(tags: Mapping[int, Any]) -> int | None:
    """The largest value that the file names, if all channels have the same and it is one less than a power of two."""
    told = _single(tags.get(_MAX_VALUE))
    return told if told is not None and told >= 2**8 - 1 and (told + 1) & told == 0 else None


def _scaled(values: np.ndarray, most: int) -> np.ndarray:
    """Values from 0 to ``most``, rounded to 0 to 255."""
    return ((values * 255 + most // 2) // most).astype(np.uint8)


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow reduces the channels, of 16 bits, to 8."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return max(_numbers(tags.get(_BITS, 8)), default=8) == 16 or any(";16" in _raw_mode(tile) for tile in image.tile)


def _sixteen_bits(image: ImageFile.ImageFile, tags: Mapping[int, Any]) -> tuple[np.ndarray, str]:
    """Channels of 16 bits, uint32 ``(H, W, C)``, and their mode: Pillow gives the high bytes, or the low ones."""
    modes = {_raw_mode(tile).partition(";")[0] for tile in image.tile}
    if tags.get(_PLANES) == 2 or "RGBa" in modes:
        raise DecodingError(
            f"of its 16-bit colours only values to {_told(tags)} are used (MaxSampleValue), in planes or premultiplied "
            "with their alpha, and such are not scaled; save the image with 8 bits a channel"
        )
    assert image.fp is not None
    image.fp.seek(0)
    content = image.fp.read()
    with Image.open(io.BytesIO(content)) as high, Image.open(io.BytesIO(content)) as low:
        low.tile = [_of_low_bytes(tile) for tile in low.tile]
        return np.asarray(high).astype(np.uint32) << 8 | np.asarray(low), high.mode


def _of_low_bytes(tile: Any) -> Any:
    """The tile, read as if its bytes came in the other order."""
    name, _, order = _raw_mode(tile).partition(";16")
    is_little = order == "L" or (order == "N" and sys.byteorder == "little")
    return _with_raw_mode(tile, f"{name};16{'B' if is_little else 'L'}")


def _mend_planes(image: ImageFile.ImageFile, tags: Mapping[int, Any]) -> None:
    """Says of a TIFF's planes that lie uncompressed how deep they are; Pillow forgets it, and takes them for 8-bit."""
    if tags.get(_PLANES) != 2:
        return
    bits = _single(tags.get(_BITS))
    is_plain = bits == 12 or image.mode == "I;16"  # of which the name has no order
    order = "" if is_plain else "B" if tags.prefix == b"MM" else "L"  # type: ignore[attr-defined]
    # Those that are compressed, or of several channels in one plane, say it.
    modes = [(tile, _raw_mode(tile)) for tile in image.tile]
    image.tile = [tile if ";" in mode else _with_raw_mode(tile, f"{mode};{bits}{order}") for tile, mode in modes]


def _raw_mode(tile: Any) -> str:
    """How the bytes of a part of an image lie, as Pillow's decoder is told."""
    told = tile.args if isinstance(tile.args, str) else tile.args[0] if tile.args else ""
    return told if isinstance(told, str) else ""


def _with_raw_mode(tile: Any, mode: str) -> Any:
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:]))


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _numbers(value: Any) -> set[int]:
    return {of for of in _tuple(value) if isinstance(of, int)}


def _single(value: Any) -> int | None:
    """The number that all channels have in common; None = there is none."""
    numbers = _numbers(value)
    return numbers.pop() if len(numbers) == 1 else None
