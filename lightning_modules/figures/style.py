"""Tensors -> matplotlib figures. Knows no model and no logger."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lightning_modules.methods.maps import magnitude

# Okabe and Ito's colours, which colour-blind readers can tell apart, with markers for print in grey.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SIGNED_COLORS = "RdBu_r"
MAGNITUDE_COLORS = "inferno"
PERCENTILE = 99.5
"""Maps are scaled to this percentile of their magnitude: one bright pixel should not turn the rest black."""

plain_text = matplotlib.rc_context({"text.parse_math": False})
"""Decorates what draws names of files and classes: dollars are no formulas there."""

Box = Sequence[float]


@plain_text
def attribution_figure(
    original: np.ndarray,
    view: Box,
    maps: Mapping[str, Tensor],
    top: Sequence[tuple[str, float]],
    *,
    title: str,
    subtitle: str,
    boxes: Tensor | None = None,
    is_target: Tensor | None = None,
) -> Figure:
    """The image, the most probable classes, and each map alone and laid over the image.

    Signed maps (their channels added up) share one scale that is centred at zero, magnitudes another. Both are
    fractions of each map's own 99.5th percentile, which stands under its name: full colour there.

    Args:
        original: The image as the user knows it: uint8 ``(H, W, 3)``.
        view: What the model saw of it: (left, top, right, bottom) in its pixels.
        maps: Name -> map ``(C, h, w)``, which covers the view.
        top: (class name, probability) of the most probable classes, best first.
        title: The first line.
        subtitle: The second line: what is explained.
        boxes: Boxes ``(K, 4)`` in pixels of the maps; outlined in the image.
        is_target: Which of them are of the class explained, bool ``(K,)``: the others are dotted. None = all.
    """
    columns = 1 + len(maps)
    width = 2.5 * columns + 1.1
    figure = Figure(figsize=(width, 5.9), dpi=110)
    grid = figure.add_gridspec(
        2, columns + 1, width_ratios=[1.0] * columns + [0.06], left=0.02, right=1 - 1 / width, bottom=0.05, top=0.8,
        wspace=0.08, hspace=0.12,
    )  # fmt: skip
    heading(figure, title, subtitle)
    image_axes = figure.add_subplot(grid[0, 0])
    _show_image(image_axes, original, view)
    if boxes is not None and maps:
        _show_boxes(image_axes, view, boxes, is_target, next(iter(maps.values())).shape)
    _show_top(figure.add_subplot(grid[1, 0]), top)
    crop = _crop(original, view)
    for column, (name, attribution) in enumerate(maps.items(), start=1):
        values = ScaledMap(attribution)
        axes = figure.add_subplot(grid[0, column])
        colors, lowest = (SIGNED_COLORS, -1) if values.is_signed else (MAGNITUDE_COLORS, 0)
        axes.imshow(values.alone, cmap=colors, vmin=lowest, vmax=1)
        scale = f"full colour at {'±' * values.is_signed}{values.scale:.2g}"
        axes.set_title(f"{wrap_name(name)}\n{scale}", fontsize=10 if len(name) <= 22 else 8)
        axes.set_axis_off()
        axes = figure.add_subplot(grid[1, column])
        show_overlay(axes, crop, values)
    _add_scales(figure, grid, columns)
    return figure


class ScaledMap:
    """A map ready to be drawn: alone in [-1, 1] or [0, 1], and its magnitude in [0, 1]."""

    def __init__(self, attribution: Tensor) -> None:
        attribution = attribution.detach().float().cpu().nan_to_num()
        self.is_signed = attribution.shape[0] > 1 or bool((attribution < 0).any())
        alone = attribution.sum(0)
        strength = magnitude(attribution[None])[0]
        self.scale = percentile(alone.abs())
        self.alone = (alone / (self.scale or 1)).clamp(-1, 1).numpy()
        self.magnitude = (strength / (percentile(strength) or 1)).clamp(0, 1).numpy()


def show_overlay(axes: Axes, pixels: np.ndarray, values: ScaledMap) -> None:
    """Draws the magnitude of a map over the pixels that it covers."""
    axes.imshow(pixels, extent=(0, 1, 0, 1))
    axes.imshow(
        values.magnitude, cmap=MAGNITUDE_COLORS, vmin=0, vmax=1, alpha=0.75 * np.sqrt(values.magnitude),
        extent=(0, 1, 0, 1),
    )  # fmt: skip
    axes.set_axis_off()


def percentile(values: Tensor) -> float:
    """The percentile that is drawn as 1; the maximum where so few pixels are lit that it would be zero."""
    flat = values.flatten()
    return float(torch.quantile(flat, PERCENTILE / 100)) or float(flat.max())


def _crop(pixels: np.ndarray, view: Box) -> np.ndarray:
    height, width = pixels.shape[:2]
    left, top = max(0, round(view[0])), max(0, round(view[1]))
    return pixels[top : min(height, max(top + 1, round(view[3]))), left : min(width, max(left + 1, round(view[2])))]


def _show_image(axes: Axes, pixels: np.ndarray, view: Box) -> None:
    axes.imshow(pixels)
    left, top, right, bottom = view
    axes.add_patch(_outline(left, top, right - left, bottom - top, "white", "--"))
    axes.set_title("image (dashed: what\nthe network sees)", fontsize=10)
    axes.set_axis_off()


def _show_boxes(axes: Axes, view: Box, boxes: Tensor, is_target: Tensor | None, shape: Sequence[int]) -> None:
    left, top, right, bottom = view
    x, y = (right - left) / shape[-1], (bottom - top) / shape[-2]
    wanted = [True] * len(boxes) if is_target is None else is_target.tolist()
    for box, is_wanted in zip(boxes.tolist(), wanted):
        position = left + box[0] * x, top + box[1] * y
        size = (box[2] - box[0]) * x, (box[3] - box[1]) * y
        axes.add_patch(_outline(*position, *size, "yellow", "-" if is_wanted else ":"))


def _outline(x: float, y: float, width: float, height: float, color: str, style: str) -> Rectangle:
    return Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.5, linestyle=style)


def _show_top(axes: Axes, top: Sequence[tuple[str, float]]) -> None:
    for row, (name, probability) in enumerate(top):
        axes.barh(row, probability, color="#4477aa", height=0.45)
        axes.text(0.0, row - 0.38, f"{shorten(name)}  {probability:.1%}", fontsize=9, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(top), 5) - 0.4, -0.7)
    axes.set_axis_off()


def heading(figure: Figure, title: str, subtitle: str = "") -> None:
    """Writes the first lines of a figure, wrapped to its width; of a long title, such as a path, the end stays."""
    width = float(figure.get_figwidth()) - 0.3
    most = int(8.5 * width)
    title = title if len(title) <= most else "…" + title[1 - most :]
    figure.suptitle(title, x=0.02, y=0.98, ha="left", va="top", fontsize=13, fontweight="bold")
    if not subtitle:
        return
    # An inch holds so many letters of each size.
    size, lines = 11, textwrap.wrap(subtitle, int(11 * width))
    if len(lines) > 1:
        size, lines = 9, textwrap.wrap(subtitle, int(13.5 * width))
    if len(lines) > 2:
        size, lines = 8, textwrap.wrap(subtitle, int(15 * width), max_lines=3, placeholder=" …")
    figure.text(0.02, 0.905, subtitle if len(lines) == 1 else "\n".join(lines), fontsize=size, va="center")


def wrap_name(name: str, most: int = 30) -> str:
    """A name such as a method's with its options, in at most two lines."""
    return "\n".join(textwrap.wrap(name, most, max_lines=2, placeholder=" …"))


def shorten(name: str, most: int = 26) -> str:
    """The name, cut to ``most`` characters."""
    return name if len(name) <= most else name[: most - 1] + "…"


def _add_scales(figure: Figure, grid: Any, columns: int) -> None:
    for row, (colors, lowest, label) in enumerate(
        ((SIGNED_COLORS, -1, "signed maps (channels added)"), (MAGNITUDE_COLORS, 0, "CAMs, and all maps laid over"))
    ):
        axes = figure.add_subplot(grid[row, columns])
        scale = figure.colorbar(ScalarMappable(Normalize(lowest, 1), colors), cax=axes)
        scale.set_label(label, fontsize=9)
        scale.ax.tick_params(labelsize=8)
