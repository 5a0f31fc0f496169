"""Does the map lie on the object? Scores of attribution maps against bounding boxes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou

from datamodules.batch import Batch, image_of_each_box
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import relative_magnitude, shows_something
from lightning_modules.metrics.base import AttributionMetric, without_degenerate


def boxes_to_mask(boxes: Tensor, height: int, width: int, margin: float = 0.0) -> Tensor:
    """The pixels inside any of the boxes ``(K, 4)``, or nearer than ``margin`` pixels to one: bool ``(height, width)``.

    A pixel belongs to a box when its centre does.

    Example:
        >>> boxes_to_mask(torch.tensor([[1.0, 0.0, 3.0, 1.0]]), 2, 4).int()
        tensor([[0, 1, 1, 0],
                [0, 0, 0, 0]], dtype=torch.int32)
    """
    return _mask_of_each(boxes, height, width, margin).any(0)


def pointing_game(attribution: Tensor, masks: Tensor) -> Tensor:
    """1 where the map's maximum lies in the mask, else 0; float32 ``(N,)``.

    Of several maxima, such as a window of Occlusion, the share that lies in the mask: where they are in reading order
    does not count. NaN where the map's magnitude is constant or not finite.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        masks: bool ``(N, H, W)``.

    Reference: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.

    Example:
        >>> masks = torch.tensor([[[True, False]]])
        >>> pointing_game(torch.tensor([[[[0.9, 0.1]]]]), masks), pointing_game(torch.tensor([[[[0.1, 0.9]]]]), masks)
        (tensor([1.]), tensor([0.]))
    """
    flat = relative_magnitude(attribution).flatten(1)
    is_maximum = flat == flat.amax(1, keepdim=True)
    share = (is_maximum & masks.flatten(1)).sum(1) / is_maximum.sum(1)
    return share.where(shows_something(flat), torch.nan)


def energy_in_box(attribution: Tensor, masks: Tensor) -> Tensor:
    """The share of the map's magnitude that lies in the mask, in [0, 1]; float ``(N,)``.

    NaN where the map's magnitude is constant or not finite.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        masks: bool ``(N, H, W)``.

    Reference: Wang et al., "Score-CAM", CVPR 2020 workshop (the energy-based pointing game).

    Example:
        >>> energy_in_box(torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[True, False]]]))
        tensor([0.7500])
    """
    energy = relative_magnitude(attribution).flatten(1)
    share = (energy * masks.flatten(1)).sum(1) / energy.sum(1)
    return share.where(shows_something(energy), torch.nan)


def localization_box(attribution: Tensor, threshold: float = 0.15) -> Tensor:
    """The box around the largest connected part of the map above a share of its maximum: ``(N, 4)``.

    Pixels touch at their sides, not at their corners. Of parts of the same size the first in reading order counts. A
    map that is zero everywhere or not finite has an empty box, (0, 0, 0, 0).

    Parts are found on the host, so a GPU is waited for.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        threshold: Share of the maximum, in (0, 1).

    Reference: Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1.

    Example:
        >>> attribution = torch.zeros(1, 1, 8, 8)
        >>> attribution[:, :, 2:4, 3:7] = 1
        >>> localization_box(attribution)
        tensor([[3., 2., 7., 4.]])
    """
    strength = relative_magnitude(attribution).detach().cpu().numpy()
    boxes = np.zeros((len(strength), 4), np.float32)
    for row, values in zip(boxes, strength):
        if not (np.isfinite(values).all() and values.max() > 0):
            continue
        parts, _ = ndimage.label(values >= threshold * values.max())
        # Label 0 is what lies below the threshold.
        largest = int(np.bincount(parts.ravel())[1:].argmax())
        y, x = ndimage.find_objects(parts)[largest]
        row[:] = x.start, y.start, x.stop, y.stop
    return torch.from_numpy(boxes).to(attribution.device)


def class_discrimination(attribution: Tensor, target: Tensor, others: Tensor) -> Tensor:
    """The share of the energy on the objects that lies on those of the target class, in [0, 1]; float ``(N,)``.

    0.5 is a map that does not tell the classes apart, if their objects are of one size. Where objects of both overlap,
    the pixels count for neither. A map that marks only other places does not tell them apart: 0.5. NaN where the map's
    magnitude is constant or not finite.

    Args:
        attribution: Maps ``(N, C, H, W)``.
        target: Where the objects of the target class are, bool ``(N, H, W)``.
        others: Where those of other classes are, bool ``(N, H, W)``.

    Example:
        >>> target, others = torch.tensor([[[True, False]]]), torch.tensor([[[False, True]]])
        >>> class_discrimination(torch.tensor([[[[3.0, 1.0]]]]), target, others)
        tensor([0.7500])
    """
    strength = relative_magnitude(attribution)
    on_target = (strength * (target & ~others)).sum((1, 2))
    on_others = (strength * (others & ~target)).sum((1, 2))
    share = (on_target / (on_target + on_others)).nan_to_num(nan=0.5)
    return share.where(shows_something(strength.flatten(1)), torch.nan)


class PointingGame(AttributionMetric):
    """Share of maps whose maximum hits an object of the target class: see :func:`pointing_game`.

    As in TorchRay, a maximum near the object hits too. Images without a box of the target class are not scored.

    Args:
        tolerance: How far beside the box, in pixels of the input, still counts as a hit.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "pointing_game": "Share of maps of which the brightest pixel lies on the object. Higher is better.",
    }
    columns = ("pointing_game",)
    lower_is_better = ()

    def __init__(self, tolerance: float = 15.0) -> None:
        if tolerance < 0:
            raise InputError(f"tolerance must be at least 0 pixels, got {tolerance}.")
        self.tolerance = tolerance

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        masks = object_masks(forward_pass, batch, self.tolerance)
        return {"pointing_game": pointing_game(attribution, masks).where(_any(masks), torch.nan)}


class EnergyInBox(AttributionMetric):
    """Mean share of a map's magnitude inside the boxes of the target class: see :func:`energy_in_box`.

    Images without a box of the target class are not scored.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "energy_in_box": "Share of a map's total strength that lies inside the object's box. Higher is better.",
    }
    columns = ("energy_in_box",)
    lower_is_better = ()

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        masks = object_masks(forward_pass, batch)
        return {"energy_in_box": energy_in_box(attribution, masks).where(_any(masks), torch.nan)}


class LocalizationError(AttributionMetric):
    """Share of images where the map's box, or the class, is wrong, as in ILSVRC's localization task.

    An image is right when the box of :func:`localization_box` has an IoU of at least ``iou`` with any box of the
    label's class **and** the label is among the 1 or 5 most probable classes. Images without a label or a box of it
    are not scored. The paper explains the predicted classes; here it is the map of the pass's target
    that is judged, so explain the label to judge the localization alone.

    Args:
        threshold: Share of the map's maximum above which a pixel belongs to the object, in (0, 1).
        iou: Intersection over union from which a box counts as found, in (0, 1].

    Reference: Selvaraju et al., "Grad-CAM", ICCV 2017, section 4.1.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "localization_error_top1": "Share of images where the map's box or the predicted class is wrong. Lower is "
        "better.",
        "localization_error_top5": "The same, where the class may be any of the five most probable ones.",
    }
    columns = ("localization_error_top1", "localization_error_top5")
    lower_is_better = columns

    def __init__(self, threshold: float = 0.15, iou: float = 0.5) -> None:
        if not 0 < threshold < 1 or not 0 < iou <= 1:
            raise InputError(f"threshold must lie in (0, 1) and iou in (0, 1], got {threshold} and {iou}.")
        self.threshold = threshold
        self.iou = iou

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        found = localization_box(attribution, self.threshold)
        label = batch["label"].to(found.device)
        image = image_of_each_box(batch).to(found.device)
        boxes, labels = batch["boxes"].to(found.device), batch["box_labels"].to(found.device)
        is_own = (labels == label[image]) & (labels >= 0)
        is_found = is_own & (box_iou(found, boxes)[image, torch.arange(len(boxes), device=image.device)] >= self.iou)
        is_right, is_scored = (
            torch.zeros_like(label).index_add_(0, image, of_boxes.long()) > 0 for of_boxes in (is_found, is_own)
        )
        best = forward_pass.logits.topk(min(5, forward_pass.logits.shape[1])).indices
        in_top1, in_top5 = best[:, 0] == label, (best == label[:, None]).any(1)
        scores = {
            name: (~(is_right & in_top)).float().where(is_scored, torch.nan)
            for name, in_top in zip(self.columns, (in_top1, in_top5))
        }
        return without_degenerate(scores, relative_magnitude(attribution))


class ClassDiscrimination(AttributionMetric):
    """How far the map of a class lies on that class's object rather than another's: see :func:`class_discrimination`.

    Only images with boxes of the target class and of another class are scored.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "class_discrimination": "Of two objects, how much more of the map lies on the one asked for. Higher is better.",
    }
    columns = ("class_discrimination",)
    lower_is_better = ()

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        target, others = object_masks(forward_pass, batch), object_masks(forward_pass, batch, of_target=False)
        share = class_discrimination(attribution, target, others)
        return {"class_discrimination": share.where(_any(target) & _any(others), torch.nan)}


def object_masks(forward_pass: ForwardPass, batch: Batch, margin: float = 0.0, of_target: bool = True) -> Tensor:
    """Where the objects of the target class are, or those of known other classes: bool ``(N, H, W)``."""
    n, _, height, width = forward_pass.images.shape
    device = forward_pass.images.device
    # The boxes of all images at once: a GPU would wait for the start of many small steps.
    image = image_of_each_box(batch).to(device)
    boxes, labels = batch["boxes"].to(device), batch["box_labels"].to(device)
    is_target = labels == forward_pass.target[image]
    wanted = is_target if of_target else ~is_target & (labels >= 0)
    masks = _mask_of_each(boxes, height, width, margin) & wanted[:, None, None]
    return torch.zeros(n, height, width, dtype=torch.int16, device=device).index_add_(0, image, masks.short()) > 0


def _mask_of_each(boxes: Tensor, height: int, width: int, margin: float) -> Tensor:
    """:func:`boxes_to_mask` of each of the boxes ``(K, 4)`` by itself: bool ``(K, height, width)``."""
    x = (torch.arange(width, device=boxes.device) + 0.5).view(1, 1, -1)
    y = (torch.arange(height, device=boxes.device) + 0.5).view(1, -1, 1)
    left, top, right, bottom = (boxes[:, k].view(-1, 1, 1) for k in range(4))
    dx = torch.maximum(left - x, x - right).clamp_min(0)
    dy = torch.maximum(top - y, y - bottom).clamp_min(0)
    not_empty = (right > left) & (bottom > top)
    return (dx.square() + dy.square() <= margin**2) & not_empty


def _any(masks: Tensor) -> Tensor:
    return masks.flatten(1).any(1)
