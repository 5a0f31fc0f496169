"""The EXIF orientation of an image: what it asks for, and where pixels and boxes go when it is turned."""

from __future__ import annotations

import torch
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor

from datamodules.batch import UPRIGHT
from datamodules.reading.annotations import AnnotationError


def turned_by_pillow(image: Image.Image) -> int:
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


def boxes_as_seen(
    boxes: Tensor, annotated: tuple[int, int], seen: tuple[int, int], orientation: int, is_turned: bool
) -> Tensor:
    """Moves boxes from the pixels that an annotation counts to those of the image as it was decoded.

    An annotation may be of the image as it lies in the file, or as its orientation turns it. Its size tells which,
    where width and height are exchanged and differ.

    Args:
        boxes: ``(K, 4)``: left, top, right, bottom.
        annotated: Width and height of the image, as the annotation has them.
        seen: Those of the decoded image.
        orientation: What the image asks for.
        is_turned: Whether the decoded image was turned so.

    Raises:
        AnnotationError: If it is of an image of another size, or it cannot be told what it is of. Names no file.
    """
    width, height = seen
    can_be_told = orientation >= 5 and width != height
    if annotated != seen and not (can_be_told and annotated == (height, width)):
        raise AnnotationError(f"is of an image of {annotated[0]} × {annotated[1]} pixels, not {width} × {height}")
    if orientation == UPRIGHT or not len(boxes) or (can_be_told and annotated == seen):
        return boxes
    if not can_be_told:
        raise AnnotationError(
            f"is of an image with the EXIF orientation {orientation}, which leaves it {width} × {height} pixels: "
            "whether the boxes are of the image before or after it is turned cannot be told"
        )
    return _exchanged(boxes, width, height, orientation if is_turned else {6: 8, 8: 6}.get(orientation, orientation))


def _exchanged(boxes: Tensor, width: int, height: int, orientation: int) -> Tensor:
    """Boxes after a turn that exchanges the axes, by one of the orientations 5 to 8, into ``width`` × ``height``."""
    left, top, right, bottom = boxes[:, [1, 0, 3, 2]].unbind(1)
    if orientation in (6, 7):
        left, right = width - right, width - left
    if orientation in (7, 8):
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], 1)
