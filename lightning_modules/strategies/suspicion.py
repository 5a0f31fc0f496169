"""Is a cluster a watermark? What its maps have in common, where that lies, and what the class loses without it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.network import Network
from lightning_modules.results.statistics import interval_of_mean

# What decides whether a region is suspicious, see :class:`Region`.
MASS, BORDER, SMALL, LEAST_COMMON, LEAST_DROP = 0.5, 1 / 6, 1 / 8, 0.25, 0.1


class Region(NamedTuple):
    """What the maps of a cluster have in common.

    Attributes:
        mask: The smallest region that holds :data:`MASS` of the mean map, bool ``(g, g)``.
        area: Share of the image.
        at_border: Share of the region that is nearer to the border than :data:`BORDER` of a side.
        least_mass: Share of its map that nine of ten images have in the region, at least.
        drop: The share of the class's probability that is lost, on average, when the mean pixel replaces the region, as
            AverageDrop has it; None = not measured.
        low: Of the 95 % interval of the difference of both probabilities.
        n_tried: Images in which it was replaced.
    """

    mask: np.ndarray
    area: float
    at_border: float
    least_mass: float
    drop: float | None = None
    low: float | None = None
    n_tried: int = 0

    @property
    def oddity(self) -> str:
        """Why the object of the class hardly lies there; empty where it may.

        Most of the region lies at the border, or it is at most :data:`SMALL` of the image; and it is the same in all
        images: :data:`LEAST_COMMON` of the map of nine of ten lies in it.
        """
        if self.least_mass < LEAST_COMMON:
            return ""
        if self.at_border > 0.5:
            return "lies at the border"
        return "is small and the same in all images" if self.area <= SMALL else ""

    @property
    def reason(self) -> str:
        """Why the cluster is suspicious: :data:`LEAST_DROP` is lost, and the interval excludes 0; else empty."""
        if self.drop is None or self.low is None or self.drop < LEAST_DROP or not self.low > 0:
            return ""
        return f"without its region, which {self.oddity}, {self.drop:.0%} of the probability is lost"

    def measured(self, pairs: np.ndarray) -> Region:
        """The region with what was lost, by probabilities with and without it, ``(n, 2)``."""
        before, after = pairs.T.astype(float)
        drop = np.maximum(before - after, 0) / np.where(before > 0, before, 1)
        return self._replace(drop=float(drop.mean()), low=interval_of_mean(before - after).low, n_tried=len(pairs))


def common_region(maps: np.ndarray) -> Region:
    """The region of maps ``(N, g, g)``, each of sum 1.

    Example:
        >>> region = common_region(np.array([[[0.6, 0.1], [0.1, 0.2]], [[0.4, 0.3], [0.2, 0.1]]]))
        >>> region.mask.tolist(), region.area, round(region.least_mass, 2)
        ([[True, False], [False, False]], 0.25, 0.42)
    """
    mean = maps.mean(0)
    order = np.argsort(-mean, axis=None, kind="stable")
    n = int(np.searchsorted(mean.flat[order].cumsum(), MASS * mean.sum() * (1 - 1e-6))) + 1
    mask = np.isin(np.arange(mean.size), order[:n]).reshape(mean.shape)
    nearest = [np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)) / side for side in mean.shape]
    at_border = (np.minimum.outer(*nearest) < BORDER)[mask].mean()
    return Region(mask, float(mask.mean()), float(at_border), float(np.quantile(maps[:, mask].sum(1), 0.1)))


@torch.no_grad()
def with_and_without(network: Network, images: Tensor, target: Tensor, masks: Tensor) -> Tensor:
    """The probability of the target before and after the mean pixel replaces a region: ``(N, 2)``.

    The positions beside the region are replaced too: a position of a layer sees more than its own pixels.

    Args:
        network: From pixels to logits.
        images: ``(N, 3, H, W)`` in [0, 1].
        target: long ``(N,)``.
        masks: The region of each, bool ``(N, g, g)``.
    """
    widened = F.max_pool2d(masks[:, None].float(), 3, stride=1, padding=1)
    removed = F.interpolate(widened, images.shape[2:], mode="nearest") > 0
    with trusted():
        found = [network(shown) for shown in (images, torch.where(removed, network.mean_pixel, images))]
    return torch.stack([network.probabilities(logits).gather(1, target[:, None])[:, 0] for logits in found], 1)
