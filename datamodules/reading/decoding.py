"""One file -> one RGB image -> one tensor of pixels, or an error that says what is wrong with the file."""

from __future__ import annotations

import io
import os
import stat
import warnings
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image, ImageFile
from torch import Tensor
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode, pil_modes_mapping

from datamodules.batch import INTERPOLATIONS, LONGEST_SIDE, UPRIGHT, pixels_of
from datamodules.errors import DataError
from datamodules.errors import DecodingError as DecodingError
from datamodules.reading.bit_depths import to_rgb
from datamodules.reading.formats import LONGEST_BEGINNING, is_raw, openable, remedy
from datamodules.reading.orientation import orientation_of, turned, turned_by_pillow

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a small file can hold an image that fills the memory."""


class Decoded(NamedTuple):
    """An image, and what its file says of it beside the pixels.

    Attributes:
        image: RGB, 8 bits a channel.
        orientation: The EXIF orientation that the file asks for, 1 to 8; 1 = as it lies there.
        is_turned: Whether the image was turned so.
        doubt: Why its pixels may be others than meant; None = there is no reason.
    """

    image: Image.Image
    orientation: int
    is_turned: bool
    doubt: str | None


def read_image(source: str | os.PathLike[str] | bytes, exif_orientation: bool = False, name: str = "") -> Decoded:
    """Decodes a file, or a file's content, to an RGB image, as torchvision's loader does (``.convert("RGB")``).

    The content decides the format, not the file's name. Transparency is dropped; of an animation the first frame is
    taken. Where torchvision's loader would saturate pixels of more than 8 bits, or take a byte that tells little, they
    are scaled by the range that the file names; see :func:`~datamodules.reading.bit_depths.to_rgb`.

    Args:
        source: The file, or its content.
        exif_orientation: Whether an image is turned as its EXIF orientation asks. It is not in published ImageNet
            numbers. Pillow, and so torchvision's loader, turns TIFFs in any case.
        name: What a content is called, which says what to do about it if it is no image that can be read.

    Raises:
        DecodingError: If the file cannot be read or decoded, is larger than ``MAX_PIXELS``, or has pixels whose range
            is unknown: signed, floating-point, or of 32 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken EXIF and transparent palettes, which do not matter here
            if not isinstance(source, bytes) and _would_wait(source):
                raise DecodingError("a pipe, socket or device, not a file")
            if not isinstance(source, bytes) and is_raw(os.fspath(source)):
                raise DecodingError(remedy(os.fspath(source)))
            openable()  # all that Pillow has, and its plugins
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DecodingError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
                return _decoded(image, exif_orientation)
    except DecodingError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DecodingError(_why_unknown(source, name)) from error
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


def _decoded(image: ImageFile.ImageFile, exif_orientation: bool) -> Decoded:
    of_tiff = turned_by_pillow(image)  # known before it is loaded, and gone afterwards
    rgb, doubt = to_rgb(image)
    if of_tiff != UPRIGHT:
        return Decoded(rgb, of_tiff, True, doubt)
    orientation = orientation_of(image)
    is_turned = exif_orientation and orientation != UPRIGHT
    return Decoded(turned(rgb, orientation) if is_turned else rgb, orientation, is_turned, doubt)


def _would_wait(source: str | os.PathLike[str]) -> bool:
    """Whether it is something that may be read forever; folders fail by themselves."""
    mode = os.stat(source).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _why_unknown(source: str | os.PathLike[str] | bytes, name: str) -> str:
    """What to say of a file, or a content, in which Pillow finds no image."""
    if isinstance(source, bytes):
        head = source[:LONGEST_BEGINNING]
    else:
        name = os.fspath(source)
        with open(source, "rb") as file:
            head = file.read(LONGEST_BEGINNING)
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return (
            "a TIFF that is damaged, or whose pixels are of a kind that is not read; save it as grey or RGB, with 8 or "
            "16 bits a channel"
        )
    return remedy(name, head) or "not an image in a known format" if head else "the file is empty"


_REACH = 5
"""Pixels beyond a point, and one for rounding, that the widest of them looks at where an image is enlarged."""


@dataclass(frozen=True)
class Preprocess:
    """From an image to what a network sees: the shorter side resized to ``resize_size``, the centre cropped, in [0, 1].

    It equals torchvision's preset of these sizes and this interpolation, minus its normalization, to the bit; by itself
    ``VGG16_Weights.IMAGENET1K_V1.transforms()``.

    Args:
        resize_size: Length in pixels of the shorter side before the crop. None = that of the crop: an image that has
            ``input_size`` on both sides already is used as it is, with every pixel.
        input_size: Height and width in pixels of the crop.
        interpolation: One of :data:`INTERPOLATIONS`.

    Raises:
        DataError: If a size is below 1 or beyond :data:`LONGEST_SIDE`, or the interpolation is no such.

    Example:
        >>> Preprocess()(Image.new("RGB", (500, 375), "white")).shape
        torch.Size([3, 224, 224])
    """

    resize_size: int | None = 256
    input_size: int = 224
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name, size in (("resize_size", self.resize_size), ("input_size", self.input_size)):
            if size is not None and not 1 <= size <= LONGEST_SIDE:
                raise DataError(f"{name} must be from 1 to {LONGEST_SIDE:,} pixels, got {size}.")
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"interpolation should be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}.")

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB image -> float32 ``(3, input_size, input_size)`` in [0, 1]."""
        return pixels_of(self.levels(image))

    def levels(self, image: Image.Image) -> Tensor:
        """RGB image -> uint8 ``(3, input_size, input_size)``: the same before it is divided by 255."""
        return F.pil_to_tensor(F.center_crop(self._resize(image), [self.input_size]))

    @property
    def mode(self) -> InterpolationMode:
        """The interpolation as torchvision's functions take it."""
        return InterpolationMode(self.interpolation)

    @property
    def short_side(self) -> int:
        """Length in pixels of the shorter side before the crop."""
        return self.input_size if self.resize_size is None else self.resize_size

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize, before the crop, of an image of ``width`` × ``height``."""
        short = min(width, height)
        return int(self.short_side * width / short), int(self.short_side * height / short)

    def view(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the model sees of an image: (left, top, right, bottom) in the pixels of that image.

        It reaches beyond the image where the crop is larger than what is cropped, and torchvision fills up with black.
        """
        new_width, new_height = self.resized(width, height)
        left, top = (self._margin(side) for side in (new_width, new_height))
        x, y = width / new_width, height / new_height
        return left * x, top * y, (left + self.input_size) * x, (top + self.input_size) * y

    def _margin(self, side: int) -> int:
        """Pixels that the crop leaves out before it begins; below 0, pixels that are filled up there."""
        spare = side - self.input_size
        return round(spare / 2) if spare >= 0 else -(-spare // 2)

    def move_boxes(self, boxes: Tensor, width: int, height: int) -> Tensor:
        """Moves boxes ``(K, 4)`` of an image to the pixels of what the model sees, clipped to it.

        A box that lies outside keeps its row, with no area.
        """
        left, top, right, bottom = self.view(width, height)
        offset = boxes.new_tensor([left, top, left, top])
        scale = self.input_size / boxes.new_tensor([right - left, bottom - top] * 2)
        return ((boxes - offset) * scale).clamp(0, self.input_size)

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = self.resized(*image.size)
        if width * height <= MAX_PIXELS:
            return F.resize(image, [self.short_side], self.mode, antialias=True)
        return self._resized_part(image, width, height)

    def _resized_part(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """The part that the crop keeps of an image that would be resized to ``width`` × ``height``.

        A strip of 20000 × 3 would take gigabytes when resized, of which the crop keeps a hundred kilobytes. The part
        differs from that of the whole by at most one of 255 levels, through the rounding of where it begins: PIL takes
        that in single precision, so what lies far from the part is cut off first. Only enlarged images are so large,
        so ``_REACH`` pixels around the part are all that the interpolation looks at.
        """
        box, size = self.view(*image.size), [min(side, self.input_size) for side in (width, height)]
        left, top = max(0.0, box[0]), max(0.0, box[1])
        right, bottom = min(float(image.width), box[2]), min(float(image.height), box[3])
        x, y = max(0, int(left) - _REACH), max(0, int(top) - _REACH)
        near = image.crop((x, y, min(image.width, int(right) + _REACH), min(image.height, int(bottom) + _REACH)))
        resample = pil_modes_mapping[self.mode]
        return near.resize((size[0], size[1]), resample, box=(left - x, top - y, right - x, bottom - y))
