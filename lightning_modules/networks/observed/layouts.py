"""Where in a layer's output its channels and its positions lie."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.host import where_float64_is

MOST_EXTRA_TOKENS = 16
"""Class, distillation and register tokens that may stand before those of the positions."""

CLEAR = 1.1
"""A quadrant of the positions answers clearly if it changes so many times more than each of the others."""

CHANNELS_FIRST = (
    *(nn.modules.conv._ConvNd, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.Dropout2d, nn.Upsample),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd),
    *(nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd),
)
"""Layers whose output is always ``(N, C, h, w)``."""


class Layout(NamedTuple):
    """How an output ``(N, ...)`` is to be read.

    Attributes:
        axes: ``NC``; ``NChw``, as convolutions give; ``NhwC``, as Swin's blocks do; ``NTC``, tokens, as ViT's do;
            or ``NCT``.
        channels: How many channels it has.
        height: Rows of positions; 1 where there are none.
        width: Columns of positions.
        extra: Tokens before those of the positions, such as ViT's class token.
    """

    axes: Literal["NC", "NChw", "NhwC", "NTC", "NCT"]
    channels: int
    height: int = 1
    width: int = 1
    extra: int = 0

    @property
    def has_positions(self) -> bool:
        return self.height * self.width > 1

    def maps(self, output: Tensor) -> Tensor:
        """The output as ``(N, C, h, w)``, without extra tokens; ``(N, C)`` stays.

        Raises:
            InputError: If the tokens of an image of another size are those of no square.
        """
        if self.axes == "NhwC":
            return output.permute(0, 3, 1, 2)
        if self.axes in ("NTC", "NCT"):
            tokens = (output.transpose(1, 2) if self.axes == "NTC" else output)[:, :, self.extra :]
            # Of an image of another size there may be more or fewer.
            side = math.isqrt(tokens.shape[2])
            if side * side != tokens.shape[2]:
                raise InputError(f"{tokens.shape[2]} tokens make no square of positions; give square images.")
            return tokens.unflatten(2, (side, side))
        return output

    def __str__(self) -> str:
        if self.axes == "NC":
            return f"{self.channels}"
        text = f"{self.channels}×{self.height}×{self.width}"
        tokens = f"{self.height * self.width} tokens" + (f" after {self.extra} more" if self.extra else "")
        kinds = {"NhwC": "N, h, w, C", "NTC": f"N, T, C: {tokens}", "NCT": f"N, C, T: {tokens}"}
        return text + (f" ({kinds[self.axes]})" if self.axes in kinds else "")


def probe_images(size: int) -> Tensor:
    """Five images in [0, 1], ``(5, 3, size, size)``: noise, and the same with other noise in one quadrant of each.

    The quadrants are the upper left one, the upper right, the lower left and the lower right.
    """
    base, other = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    images = base.repeat(5, 1, 1, 1)
    begin, end = size // 8, max(3 * size // 8, size // 8 + 1)
    for quadrant in range(4):
        top, left = (size // 2 * number for number in divmod(quadrant, 2))
        area = (slice(None), slice(top + begin, top + end), slice(left + begin, left + end))
        images[(1 + quadrant, *area)] = other[area]
    return images


def observed_layout(layer: nn.Module, output: Tensor, before: Layout | None = None) -> Layout | None:
    """The layout of a layer's output for :func:`probe_images`, ``(5, ...)``; None = in doubt.

    A layer with positions answers where the image changed. Of the ways in which the output may be read, that one is
    taken whose quadrants answer each to the change in its own quadrant of the image, and clearly. Where that does not
    decide, as after global attention or on grids of few positions, what the layer is does, or what stands before it, or
    a shape that can be read in one way only.

    Args:
        layer: The layer.
        output: What it gives.
        before: The layout of the last layer before it that is one of :data:`CHANNELS_FIRST`.
    """
    shape = tuple(output.shape[1:])
    if len(shape) == 1:
        return Layout("NC", shape[0])
    output = where_float64_is(output.detach())
    change = (output[1:] - output[:1]).abs().double()
    clearness = {layout: _clearness(layout, change) for layout in _readings(shape)}
    if clear := [layout for layout, value in clearness.items() if value > CLEAR]:
        return max(clear, key=lambda layout: clearness[layout])
    if isinstance(layer, CHANNELS_FIRST) and len(shape) == 3:
        return Layout("NChw", *shape)
    if before is not None and len(shape) == 3 and shape[1:] == (before.height, before.width):
        return Layout("NChw", *shape)
    square = [layout for layout in clearness if layout.height == layout.width]
    # Not a number: nothing changed anywhere, or there is one position, so that nothing speaks against it.
    return square[0] if len(square) == 1 and not clearness[square[0]] < 1 else None


def _readings(shape: tuple[int, ...]) -> Iterator[Layout]:
    """The ways in which an output of that shape, without the batch, may be read."""
    if len(shape) == 3:
        if shape[1:] == (1, 1) or shape[:2] != (1, 1):
            yield Layout("NChw", *shape)
        if shape[1:] != (1, 1):
            yield Layout("NhwC", shape[2], shape[0], shape[1])
    elif len(shape) == 2:
        ways: tuple[tuple[Literal["NTC", "NCT"], int, int], ...] = (("NTC", *shape), ("NCT", *shape[::-1]))
        for axes, tokens, channels in ways:
            side = math.isqrt(tokens)
            if side > 1 and tokens - side * side <= MOST_EXTRA_TOKENS:
                yield Layout(axes, channels, side, side, tokens - side * side)


def _clearness(layout: Layout, change: Tensor) -> float:
    """How many times more each quadrant answers to a change of its own than any other quadrant does, at least.

    Args:
        layout: How ``change`` is read.
        change: How much the output changed with each quadrant of the image, ``(4, ...)``.

    Returns:
        At least 0; NaN if some quadrant's change changed nothing, or there are no quadrants.
    """
    if layout.height < 2 or layout.width < 2:
        return math.nan
    maps = layout.maps(change).sum(1)
    rows, columns = layout.height // 2, layout.width // 2
    halves = (slice(None, rows), slice(-rows, None)), (slice(None, columns), slice(-columns, None))
    answers = torch.stack([maps[:, a, b].mean((1, 2)) for a in halves[0] for b in halves[1]], 1)
    own, others = answers.diagonal(), answers.clone().fill_diagonal_(0)
    return float((own / others.amax(1)).nan_to_num(math.inf, math.inf).min()) if answers.any(1).all() else math.nan
