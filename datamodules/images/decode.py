"""One file -> one RGB image, or an error that says what is wrong with the file."""

from __future__ import annotations

import io
import os
import stat
from typing import Any, BinaryIO, NamedTuple

from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from datamodules.batch import UPRIGHT
from datamodules.errors import DecodingError
from datamodules.images.depths import to_rgb
from datamodules.images.formats import LONGEST_BEGINNING, is_raw, openable, remedy

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a small file can hold an image that fills the memory."""

UNDER_ALPHA = "what lies under full transparency (alpha 0) is seen; save it on a background of one colour"
FIRST_PAGE = "of the pages of a TIFF the first is read; save each as a file"


class Decoded(NamedTuple):
    """An image, and what its file says of it beside the pixels.

    Attributes:
        image: RGB, 8 bits a channel.
        orientation: The EXIF orientation that the file asks for, 1 to 8; 1 = as it lies there.
        is_turned: Whether the image was turned so.
        note: What else the file holds that is not seen as its author may expect; None = nothing.
    """

    image: Image.Image
    orientation: int
    is_turned: bool
    note: str | None

    def columns(self) -> dict[str, Any]:
        """What the rows hold of the file: the :data:`~datamodules.batch.FILE_COLUMNS`."""
        return {"exif_orientation": UPRIGHT if self.is_turned else self.orientation, "note": self.note}


def read_image(source: str | os.PathLike[str] | bytes, exif_orientation: bool = False, name: str = "") -> Decoded:
    """Decodes a file, or a file's content, to an RGB image, as torchvision's loader does (``.convert("RGB")``).

    The content decides the format, not the file's name. Transparency is dropped; of an animation the first frame is
    taken. Where torchvision's loader would saturate pixels of more than 8 bits, they are scaled by the range that the
    file names; see :func:`~datamodules.images.depths.to_rgb`.

    Args:
        source: The file, or its content.
        exif_orientation: Whether an image is turned as its EXIF orientation asks. It is not in published ImageNet
            numbers. Pillow, and so torchvision's loader, turns TIFFs in any case.
        name: What a content is called, which says what to do about it if it is no image that can be read.

    Raises:
        DecodingError: If the file cannot be read or decoded, is larger than ``MAX_PIXELS``, or has pixels whose range
            is unknown.
    """
    head = b""
    try:
        if not isinstance(source, bytes):
            name = os.fspath(source)
            if not stat.S_ISREG(mode := os.stat(source).st_mode) and not stat.S_ISDIR(mode):  # folders fail below
                raise DecodingError("a pipe, socket or device, not a file")
        if is_raw(name):
            raise DecodingError(remedy(name))
        openable()  # all that Pillow has, and its plugins
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            head = file.read(LONGEST_BEGINNING)
            file.seek(0)
            return _decoded(file, head, exif_orientation)
    except DecodingError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DecodingError(_why_unknown(head, name)) from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise DecodingError(f"it has more than {most:,} pixels; save it with at most {MAX_PIXELS:,}") from error
    except OSError as error:
        raise DecodingError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise DecodingError(f"cannot be decoded: {type(error).__name__}: {error}") from error


def decode_image(source: str | os.PathLike[str] | bytes, exif_orientation: bool = False) -> Image.Image:
    """The RGB image alone of what :func:`read_image` gives.

    Raises:
        DecodingError: As :func:`read_image`; names the file.

    Example:
        >>> content = io.BytesIO()
        >>> Image.new("L", (4, 3)).save(content, "PNG")
        >>> decode_image(content.getvalue()).mode
        'RGB'
    """
    try:
        return read_image(source, exif_orientation).image
    except DecodingError as error:
        if isinstance(source, bytes):
            raise
        raise DecodingError(f"{os.fspath(source)}: {error}") from error


def _decoded(file: BinaryIO, head: bytes, exif_orientation: bool) -> Decoded:
    with Image.open(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DecodingError(
                f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}; save the image smaller"
            )
        # Pillow turns TIFFs, and no others, when it loads them; by what is known before, and gone afterwards.
        asked = image.tag_v2.get(ExifTags.Base.Orientation) if isinstance(image, TiffImageFile) else UPRIGHT
        by_pillow = _known(asked)
        rgb = to_rgb(image, head)
        note = _note(image)
        if by_pillow != UPRIGHT:
            return Decoded(rgb, by_pillow, True, note)
        orientation = _orientation_of(image)
        is_turned = exif_orientation and orientation != UPRIGHT
        return Decoded(_turned(rgb, orientation) if is_turned else rgb, orientation, is_turned, note)


def _note(image: Image.Image) -> str | None:
    """What of a loaded image is seen, or is not, otherwise than in a viewer."""
    notes = []
    has_alpha = image.has_transparency_data  # of premultiplied grey Pillow makes nothing but grey with alpha
    if has_alpha and image.convert("LA" if image.mode == "La" else "RGBA").getchannel("A").getextrema()[0] == 0:
        notes.append(UNDER_ALPHA)
    try:
        n_pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    except Exception:  # the further pages may be damaged
        n_pages = 1
    if n_pages > 1:
        notes.append(FIRST_PAGE)
    return "; ".join(notes) or None


def _known(orientation: object) -> int:
    """An orientation, 2 to 8; 1 = there is none such."""
    return next((known for known in range(2, 9) if known == orientation), UPRIGHT)


def _orientation_of(image: Image.Image) -> int:
    """The EXIF orientation that a loaded image asks for; 1 = it asks for none, or its EXIF cannot be read."""
    try:
        return _known(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return UPRIGHT


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as an EXIF orientation asks for it."""
    bare = Image.frombuffer(image.mode, image.size, image.tobytes())  # without EXIF, which may be damaged elsewhere
    bare.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(bare)


def _why_unknown(head: bytes, name: str) -> str:
    """What to say of a file in which Pillow finds no image."""
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return (
            "a TIFF that is damaged, or whose pixels are of a kind that is not read; save it as grey or RGB, with 8 or "
            "16 bits a channel"
        )
    return remedy(name, head) or "not an image in a known format" if head else "the file is empty"
