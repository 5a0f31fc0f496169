"""The EXIF orientation of an image: what it asks for, and the image when it is turned so."""

from __future__ import annotations

from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from datamodules.batch import UPRIGHT


def orientation_by_pillow(image: Image.Image) -> int:
    """The orientation that Pillow itself will give an opened image when it loads it: it turns TIFFs, and no others."""
    return _known(image.tag_v2.get(ExifTags.Base.Orientation)) if isinstance(image, TiffImageFile) else UPRIGHT


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 2 to 8, that a loaded image asks for; 1 = it asks for none, or its EXIF cannot be read."""
    try:
        return _known(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises nearly anything on damaged EXIF
        return UPRIGHT


def _known(orientation: object) -> int:
    return next((known for known in range(2, 9) if known == orientation), UPRIGHT)


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The image as an EXIF orientation asks for it."""
    bare = Image.frombuffer(image.mode, image.size, image.tobytes())  # without EXIF, which may be damaged elsewhere
    bare.getexif()[ExifTags.Base.Orientation] = orientation
    return ImageOps.exif_transpose(bare)
