"""How images are to be prepared for a network, as those say it who made it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """What a library says of a network of its own.

    Attributes:
        origin: Who says it, in words.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel.
        input_size: Height and width in pixels.
        resize_size: Length in pixels of the shorter side before the crop.
        interpolation: bilinear, bicubic, ...
        target_layer: Where Grad-CAM looks; None = the last layer with positions.
        oddities: What is done otherwise than it says, a sentence each.
    """

    origin: str
    mean: Sequence[float]
    std: Sequence[float]
    input_size: int
    resize_size: int
    interpolation: str
    target_layer: str | None = None
    oddities: tuple[str, ...] = ()
