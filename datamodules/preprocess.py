"""From an RGB image to what a network sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F
from torchvision.transforms.functional import InterpolationMode

from datamodules.batch import CROPS, INTERPOLATIONS, LONGEST_SIDE, pixels_of
from datamodules.errors import DataError, DecodingError
from datamodules.images.decode import MAX_PIXELS


class PreprocessOptions(TypedDict, total=False):
    """Options of :class:`Preprocess`, as data modules take them.

    Args:
        resize_size: Length in pixels of the shorter side before the centre crop; 256 by default. null = that of the
            crop, so that images of ``input_size`` are used as they are.
        input_size: Height and width in pixels of what the network sees; 224 by default.
        interpolation: How images are resized: nearest, bilinear (by default), bicubic, box, hamming or lanczos.
        crop: center (by default): the shorter side is resized, the centre cropped. squash: both sides are resized to
            ``resize_size``, whatever the proportions, so with null nothing is cropped. center_floor, squash_floor: the
            same, with the crop where transformers begins it.
    """

    resize_size: int | None
    input_size: int
    interpolation: str
    crop: str


@dataclass(frozen=True)
class Preprocess:
    """From an image to what a network sees: the shorter side resized to ``resize_size``, the centre cropped, in [0, 1].

    It equals torchvision's preset of these sizes and this interpolation, minus its normalization, to the bit; by itself
    ``VGG16_Weights.IMAGENET1K_V1.transforms()``. With ``crop`` squash it equals timm's ``crop_mode`` of that name, and
    with center_floor and squash_floor what transformers' image processors do by Pillow.

    Args:
        resize_size: Length in pixels of the shorter side before the crop. None = that of the crop: an image that has
            ``input_size`` on both sides already is used as it is, with every pixel.
        input_size: Height and width in pixels of the crop.
        interpolation: One of :data:`INTERPOLATIONS`.
        crop: ``center`` resizes the shorter side, and ``squash`` both sides, to ``resize_size``; then the centre is
            cropped. An odd margin is halved as torchvision rounds it, half to even; in ``center_floor`` and
            ``squash_floor`` it is rounded down, as transformers does.

    Raises:
        DataError: If a size is below 1 or beyond :data:`LONGEST_SIDE`, the interpolation or the crop is no such, or a
            crop that rounds down is larger than what it is taken of.

    Example:
        >>> Preprocess()(Image.new("RGB", (500, 375), "white")).shape
        torch.Size([3, 224, 224])
    """

    resize_size: int | None = 256
    input_size: int = 224
    interpolation: str = "bilinear"
    crop: str = "center"

    def __post_init__(self) -> None:
        for name, size in (("resize_size", self.resize_size), ("input_size", self.input_size)):
            if size is not None and not 1 <= size <= LONGEST_SIDE:
                raise DataError(f"{name} must be from 1 to {LONGEST_SIDE:,} pixels, got {size}.")
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"interpolation should be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}.")
        if self.crop not in CROPS:
            raise DataError(f"crop should be one of {', '.join(CROPS)}, got {self.crop!r}.")
        if self._rounds_down and self.short_side < self.input_size:
            raise DataError(
                f"crop {self.crop} cannot take {self.input_size} pixels of {self.short_side}: resize_size must be at "
                "least input_size."
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """RGB image -> float32 ``(3, input_size, input_size)`` in [0, 1]."""
        return pixels_of(self.levels(image))

    def levels(self, image: Image.Image) -> Tensor:
        """RGB image -> uint8 ``(3, input_size, input_size)``: the same before it is divided by 255.

        Raises:
            DecodingError: If it is so elongated that resized it would have more than 100 megapixels.
        """
        width, height = self.resized(*image.size)
        if width * height > MAX_PIXELS:
            raise DecodingError(
                f"{image.width} × {image.height} pixels would be resized to {width:,} × {height:,}, more than "
                f"{MAX_PIXELS:,}; crop the image"
            )
        # By numpy: PyTorch would start threads of its own in each thread that reads.
        sides = [self.short_side] * (2 if self._squashes else 1)
        resized = F.resize(image, sides, self.mode, antialias=True)
        if self._rounds_down:
            left, top = self._margin(width), self._margin(height)
            cropped = resized.crop((left, top, left + self.input_size, top + self.input_size))
        else:
            cropped = F.center_crop(resized, [self.input_size])
        pixels = np.asarray(cropped)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    @property
    def mode(self) -> InterpolationMode:
        """The interpolation as torchvision's functions take it."""
        return InterpolationMode(self.interpolation)

    @property
    def short_side(self) -> int:
        """Length in pixels of the shorter side before the crop."""
        return self.input_size if self.resize_size is None else self.resize_size

    @property
    def _squashes(self) -> bool:
        return self.crop.startswith("squash")

    @property
    def _rounds_down(self) -> bool:
        return self.crop.endswith("_floor")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize, before the crop, of an image of ``width`` × ``height``."""
        if self._squashes:
            return self.short_side, self.short_side
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
        if self._rounds_down:
            return spare // 2
        return round(spare / 2) if spare >= 0 else -(-spare // 2)

    def move_boxes(self, boxes: Tensor, width: int, height: int) -> Tensor:
        """Moves boxes ``(K, 4)`` of an image to the pixels of what the model sees, clipped to it.

        A box that lies outside keeps its row, with no area.
        """
        left, top, right, bottom = self.view(width, height)
        offset = boxes.new_tensor([left, top, left, top])
        scale = self.input_size / boxes.new_tensor([right - left, bottom - top] * 2)
        return ((boxes - offset) * scale).clamp(0, self.input_size)
