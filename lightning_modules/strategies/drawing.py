"""Images under their maps, and a sheet of the clusters of a class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.figures.sheets import Cell, mosaic
from lightning_modules.figures.style import MAGNITUDE_COLORS
from lightning_modules.strategies.finding import N_NEAREST, ClassClusters, Strategies

# Pixels of an image on a sheet.
SIDE = 112


def overlaid(pixels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """An image, uint8 ``(s, s, 3)``, under its map, ``(g, g)``, at least 0."""
    small = Image.fromarray((strength / strength.max()).astype(np.float32))
    shown = np.asarray(small.resize(pixels.shape[:2], Image.Resampling.BICUBIC)).clip(0, 1)
    alpha = 0.75 * np.sqrt(shown)[..., None]
    return ((1 - alpha) * pixels + alpha * 255 * colormaps[MAGNITUDE_COLORS](shown)[..., :3]).round().astype(np.uint8)


def contact_sheet(found: ClassClusters, strategies: Strategies, pixels: Mapping[str, np.ndarray]) -> Figure:
    """A line for each cluster of a class: its mean map, and the images nearest to its middle without and with theirs.

    Args:
        found: The class.
        strategies: All classes.
        pixels: By path, uint8 ``(SIDE, SIDE, 3)``; an image that is not there has an empty frame.
    """
    lines, labels = [], []
    for k, cluster in enumerate(found.clusters):
        line = [Cell(overlaid(np.full((SIDE, SIDE, 3), 128, np.uint8), cluster.mean_map), "mean map")]
        for i in cluster.members[:N_NEAREST]:
            path = strategies.rows["path"].iloc[i]
            image = pixels.get(path)
            line += [Cell(image, foot=path), Cell(None if image is None else overlaid(image, strategies.maps[i]))]
        labels.append(f"cluster {k}\n{len(cluster.members):,} images{', suspicious' * bool(cluster.region.reason)}")
        lines.append(line)
    return mosaic(lines, f"{found.name}: clusters, and the images nearest to their middles", SIDE, labels)
