"""What is clustered: maps that a run kept, maps that are made anew, and activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.batch import Batch
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.explain import explain
from lightning_modules.methods.maps import relative_magnitude
from lightning_modules.networks.network import Network
from lightning_modules.results.maps import read_maps
from lightning_modules.synthesis import respond

# Positions a side on which maps are compared at most: those of VGG16's last convolutions.
GRID = 14

# (rows, function) -> path of each image that can be read -> what the function makes of it. The function gets batches of
# the images of the rows, with pixels in [0, 1], and their targets, long (N,).
Look = Callable[[pd.DataFrame, Callable[[Batch, Tensor], Tensor]], dict[str, np.ndarray]]


def unit_masses(maps: Tensor) -> Tensor:
    """Maps ``(N, C, h, w)`` on a grid of at most :data:`GRID` positions a side, each of sum 1: float32 ``(N, g, g)``.

    What counts is the magnitude, see :func:`~lightning_modules.methods.maps.magnitude`. A map that shows nothing, or is
    not finite, is NaN.

    Example:
        >>> unit_masses(torch.tensor([[[[3.0, -1.0], [1.0, 0.0]]]]))
        tensor([[[0.7500, 0.0000],
                 [0.2500, 0.0000]]])
    """
    strength = relative_magnitude(maps)
    height, width = (min(side, GRID) for side in strength.shape[1:])
    small = F.adaptive_avg_pool2d(strength[:, None], (height, width))[:, 0]
    mass = small.sum((1, 2), keepdim=True)
    return torch.where((mass > 0) & mass.isfinite(), small / mass, torch.nan).float()


def kept_masses(run: Path, method: str, paths: Sequence[str]) -> np.ndarray:
    """The maps that a run kept of these images, as :func:`unit_masses` has them: ``(N, g, g)``."""
    kept = read_maps(run)
    parts = [paths[k : k + 1000] for k in range(0, len(paths), 1000)]
    return torch.cat([unit_masses(torch.stack([kept[path][method] for path in part])) for part in parts]).numpy()


def new_masses(network: Network, look: Look, rows: pd.DataFrame, method: AttributionMethod) -> np.ndarray:
    """The same of maps that are made now; NaN of an image that cannot be read any more."""

    def masses(batch: Batch, target: Tensor) -> Tensor:
        return unit_masses(explain(network, batch["image"], [method], target, keys=batch["path"]).grids[repr(method)])

    return in_order(look(rows, masses), rows)


def features(network: Network, look: Look, rows: pd.DataFrame) -> np.ndarray:
    """The activations of the layer before the head, averaged over its positions, each of length 1: ``(N, C)``."""
    calls, n_classes = network.facts.by_label, len(network.class_names)
    layer = next(label for label in reversed(network.layer_channels) if calls[label].shape != (n_classes,))

    @torch.no_grad()
    def activations(batch: Batch, target: Tensor) -> Tensor:
        output = respond(network, batch["image"], layer).float()
        return F.normalize(output.flatten(2).mean(2) if output.ndim > 2 else output)

    return in_order(look(rows, activations), rows)


def in_order(found: dict[str, np.ndarray], rows: pd.DataFrame) -> np.ndarray:
    """What was found of each row's image; NaN, or black, where there is nothing."""
    first = next(iter(found.values()))
    nothing = np.full_like(first, np.nan if first.dtype.kind == "f" else 0)
    return np.stack([found.get(path, nothing) for path in rows["path"]])
