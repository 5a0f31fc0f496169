"""The figure of an image with the maps of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from datamodules.batch import Batch, boxes_of
from lightning_modules.figures.saving import Drawing
from lightning_modules.figures.style import (
    MAGNITUDE_COLORS,
    SIGNED_COLORS,
    ScaledMap,
    heading,
    plain_text,
    shorten,
    show_overlay,
    wrap_name,
)
from lightning_modules.host import on_host

Box = Sequence[float]

MOST_COLUMNS = 7
"""Of more panels than that, the image among them, a figure has several bands, one below the other."""

HEIGHT, BAND = 5.9, 5.2
"""Inches: how high a figure with one band is, and how much each further one adds."""


def drawings_of_images(
    batch: Batch,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    probabilities: Tensor,
    target: Tensor,
    maps: Mapping[str, Tensor],
) -> dict[int, Figure | Drawing]:
    """Functions that draw the figure of each image that came with its original and did not fail.

    Args:
        batch: N images.
        rows: The row of each.
        names: Of the classes.
        probabilities: ``(N, C)``.
        target: The class that the maps explain, ``(N,)``.
        maps: Method -> ``(N, 1 or 3, H, W)``; none if there is nothing to explain.

    Returns:
        Number of an image in the batch -> function.
    """
    shown = [i for i, row in enumerate(rows) if batch["original"][i] is not None and row["status"] != "failed"]
    if not shown:
        return {}
    top = probabilities.topk(min(5, len(names)))
    maps_of_images = {i: {name: attribution[i] for name, attribution in maps.items()} for i in shown}
    boxes = {name: batch[name] for name in ("boxes", "box_labels", "n_boxes")}
    top_probabilities, top_classes, target, maps_of_images, boxes = on_host(
        (top.values, top.indices, target, maps_of_images, boxes)
    )
    batch = {**batch, **boxes}  # type: ignore[typeddict-item]
    drawings: dict[int, Figure | Drawing] = {}
    for i in shown:
        row, original = rows[i], batch["original"][i]
        assert original is not None
        label = f"label: {row['label_name']}   " if row["label_name"] else ""
        explained = f"   maps explain: {names[int(target[i])]}" if maps else ""
        image_boxes, box_labels = boxes_of(batch, i)
        drawings[i] = partial(
            attribution_figure,
            original.pixels,
            original.view,
            maps_of_images[i],
            [(names[k], value) for k, value in zip(top_classes[i].tolist(), top_probabilities[i].tolist())],
            title=row["path"],
            subtitle=f"{label}predicted: {row['prediction_name']} ({row['probability']:.1%}){explained}",
            boxes=image_boxes,
            is_target=box_labels == int(target[i]),
        )
    return drawings


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
    """The image, the most probable classes, and each map alone and laid over the image; many maps in several bands.

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
    bands = -(-(1 + len(maps)) // MOST_COLUMNS)
    columns = -(-(1 + len(maps)) // bands)
    width, height = 2.5 * columns + 1.1, HEIGHT + (bands - 1) * BAND
    figure = Figure(figsize=(width, height), dpi=110)
    outer = figure.add_gridspec(
        bands, 1, left=0.02, right=1 - 1 / width, bottom=0.05 * HEIGHT / height, top=1 - 0.2 * HEIGHT / height,
        hspace=(BAND - 0.75 * HEIGHT) / (0.75 * HEIGHT),
    )  # fmt: skip
    grids = [
        outer[band].subgridspec(2, columns + 1, width_ratios=[1.0] * columns + [0.06], wspace=0.08, hspace=0.12)
        for band in range(bands)
    ]
    heading(figure, title, subtitle, height / HEIGHT)
    image_axes = figure.add_subplot(grids[0][0, 0])
    _show_image(image_axes, original, view)
    if boxes is not None and maps:
        _show_boxes(image_axes, view, boxes, is_target, next(iter(maps.values())).shape)
    _show_top(figure.add_subplot(grids[0][1, 0]), top)
    crop = _crop(original, view)
    for place, (name, attribution) in enumerate(maps.items(), start=1):
        band, column = divmod(place, columns)
        values = ScaledMap(attribution)
        axes = figure.add_subplot(grids[band][0, column])
        colors, lowest = (SIGNED_COLORS, -1) if values.is_signed else (MAGNITUDE_COLORS, 0)
        axes.imshow(values.alone, cmap=colors, vmin=lowest, vmax=1)
        scale = f"full colour at {'±' * values.is_signed}{values.scale:.2g}"
        axes.set_title(f"{wrap_name(name)}\n{scale}", fontsize=10 if len(name) <= 22 else 8)
        axes.set_axis_off()
        axes = figure.add_subplot(grids[band][1, column])
        show_overlay(axes, crop, values)
    if maps:
        _add_scales(figure, grids[0], columns)
    return figure


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


def _add_scales(figure: Figure, grid: Any, columns: int) -> None:
    for row, (colors, lowest, label) in enumerate(
        ((SIGNED_COLORS, -1, "signed maps (channels added)"), (MAGNITUDE_COLORS, 0, "CAMs, and all maps laid over"))
    ):
        axes = figure.add_subplot(grid[row, columns])
        scale = figure.colorbar(ScalarMappable(Normalize(lowest, 1), colors), cax=axes)
        scale.set_label(label, fontsize=9)
        scale.ax.tick_params(labelsize=8)
