"""Does the map lie on the object? Scores of attribution maps against bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.forward_pass import ForwardPass
from lightning_modules.maps import magnitude
from lightning_modules.metrics.base import AttributionMetric, Batch


def boxes_to_mask(boxes: Tensor, height: int, width: int, margin: float = 0.0) -> Tensor:
    """The pixels inside any of the boxes ``(K, 4)``, or nearer than ``margin`` pixels to one: bool ``(height, width)``.

    A pixel belongs to a box when its centre does.

    Example:
        >>> boxes_to_mask(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), 2, 4).int()
        tensor([[0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    x = (torch.arange(width, device=boxes.device) + 0.5).view(1, 1, -1)
    y = (torch.arange(height, device=boxes.device) + 0.5).view(1, -1, 1)
    left, top, right, bottom = (boxes[:, k].view(-1, 1, 1) for k in range(4))
    dx = torch.maximum(left - x, x - right).clamp_min(0)
    dy = torch.maximum(top - y, y - bottom).clamp_min(0)
    not_empty = (right > left) & (bottom > top)
    return ((dx.square() + dy.square() <= margin**2) & not_empty).any(0)


def pointing_game(attribution: Tensor, masks: Tensor) -> Tensor:
    """1 where the map's maximum lies in the mask, else 0; float32 ``(N,)``.

    Of several maxima the first in reading order counts. A map that is constant or not finite points nowhere: 0.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        masks: bool ``(N, H, W)``.

    Reference: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.
    """
    flat = magnitude(attribution).flatten(1)
    points_somewhere = flat.isfinite().all(1) & (flat.amax(1) > flat.amin(1))
    hit = masks.flatten(1).gather(1, flat.nan_to_num().argmax(1, keepdim=True))[:, 0]
    return (hit & points_somewhere).float()


def energy_in_box(attribution: Tensor, masks: Tensor) -> Tensor:
    """The share of the map's magnitude that lies in the mask, in [0, 1]; float ``(N,)``.

    A map that is zero everywhere or not finite has no energy to share: 0.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        masks: bool ``(N, H, W)``.

    Reference: Wang et al., "Score-CAM", CVPR 2020 workshop (the energy-based pointing game).
    """
    energy = magnitude(attribution).flatten(1)
    share = (energy * masks.flatten(1)).sum(1) / energy.sum(1)
    return share.nan_to_num(nan=0.0, posinf=0.0)


class PointingGame(AttributionMetric):
    """Share of maps whose maximum hits an object of the target class: see :func:`pointing_game`.

    Images without a box of the target class are not scored.

    Args:
        tolerance: How far beside the box, in pixels of the input, still counts as a hit.
    """

    name = "pointing_game"

    def __init__(self, tolerance: float = 15.0) -> None:
        super().__init__()
        if tolerance < 0:
            raise InputError(f"tolerance must be at least 0 pixels, got {tolerance}.")
        self.tolerance = tolerance

    def score(self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch) -> Tensor:
        masks, has_box = _target_masks(forward_pass, batch, self.tolerance)
        return pointing_game(attribution, masks).where(has_box, torch.nan)


class EnergyInBox(AttributionMetric):
    """Mean share of a map's magnitude inside the boxes of the target class: see :func:`energy_in_box`.

    Images without a box of the target class are not scored.
    """

    name = "energy_in_box"

    def score(self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch) -> Tensor:
        masks, has_box = _target_masks(forward_pass, batch)
        return energy_in_box(attribution, masks).where(has_box, torch.nan)


def _target_masks(forward_pass: ForwardPass, batch: Batch, margin: float = 0.0) -> tuple[Tensor, Tensor]:
    """Where the objects of the target class are, bool ``(N, H, W)``, and whether there are any, bool ``(N,)``."""
    height, width = forward_pass.images.shape[2:]
    boxes: Sequence[Tensor] = [
        boxes.to(forward_pass.images.device)[labels.to(target.device) == target]
        for boxes, labels, target in zip(batch["boxes"], batch["box_labels"], forward_pass.target)
    ]
    masks = torch.stack([boxes_to_mask(k, height, width, margin) for k in boxes])
    return masks, masks.flatten(1).any(1)
