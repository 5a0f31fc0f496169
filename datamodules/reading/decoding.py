"""One file -> one RGB image -> one tensor of pixels, or an error that says what is wrong with the file."""

from __future__ import annotations

import io
import os
import stat
import warnings
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
)
MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a small file can hold an image that fills the memory."""


class DecodingError(ValueError):
    """A file that is not a usable image; the message says why, without the path."""


def decode_image(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Decodes a file, or a file's content, to an RGB image, as torchvision's loader does (``.convert("RGB")``).

    The content decides the format, not the file's name. Transparency is dropped; of an animation the first frame is
    taken; the EXIF orientation is not applied, as in all published ImageNet numbers. 16-bit grayscale is
    scaled to 8 bits, where PIL's own conversion would saturate.

    Raises:
        DecodingError: If the file cannot be read or decoded, is larger than ``MAX_PIXELS``, or has floating-point or
            32-bit pixels, whose range is unknown.

    Example:
        >>> content = io.BytesIO()
        >>> Image.new("L", (4, 3)).save(content, "PNG")
        >>> decode_image(content.getvalue()).mode
        'RGB'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken EXIF and transparent palettes, which do not matter here
            if not isinstance(source, bytes) and _would_wait(source):
                raise DecodingError("a pipe, socket or device, not a file")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DecodingError(f"{image.width} × {image.height} pixels are more than {MAX_PIXELS:,}")
                return _to_rgb(image)
    except DecodingError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DecodingError("not an image in a known format" if _size(source) else "the file is empty") from error
    except OSError as error:
        raise DecodingError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        raise DecodingError(f"cannot be decoded: {type(error).__name__}: {error}") from error


def _would_wait(source: str | os.PathLike[str]) -> bool:
    """Whether it is something that may be read forever; folders fail by themselves."""
    mode = os.stat(source).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _size(source: str | os.PathLike[str] | bytes) -> int:
    return len(source) if isinstance(source, bytes) else os.stat(source).st_size


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise DecodingError(f"{kind} pixels have no known range; save the image with 8 or 16 bits a channel")
    return image.convert("RGB")


@dataclass(frozen=True)
class Preprocess:
    """From an image to what VGG16 sees: the shorter side resized to ``resize_size``, the centre cropped, in [0, 1].

    With 256 and 224 this equals torchvision's ``VGG16_Weights.IMAGENET1K_V1.transforms()`` minus its normalization, to
    the bit.

    Example:
        >>> Preprocess()(Image.new("RGB", (500, 375), "white")).shape
        torch.Size([3, 224, 224])
    """

    resize_size: int = 256
    input_size: int = 224

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB image -> float32 ``(3, input_size, input_size)`` in [0, 1]."""
        image = self._resize(image)
        return F.convert_image_dtype(F.pil_to_tensor(F.center_crop(image, [self.input_size])), torch.float32)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize, before the crop, of an image of ``width`` × ``height``."""
        short = min(width, height)
        return int(self.resize_size * width / short), int(self.resize_size * height / short)

    def view(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What the model sees of an image: (left, top, right, bottom) in the pixels of that image."""
        new_width, new_height = self.resized(width, height)
        left, top = (round((side - self.input_size) / 2.0) for side in (new_width, new_height))
        x, y = width / new_width, height / new_height
        return left * x, top * y, (left + self.input_size) * x, (top + self.input_size) * y

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
            return F.resize(image, [self.resize_size], InterpolationMode.BILINEAR, antialias=True)
        # A strip of 20000 × 3 would take gigabytes when resized, of which the crop keeps a hundred kilobytes. Resizing
        # the part alone differs from resizing all by at most one of 255 levels, through PIL's rounding.
        left, top, right, bottom = self.view(*image.size)
        size = [min(side, self.input_size) for side in (width, height)]
        return image.resize((size[0], size[1]), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
