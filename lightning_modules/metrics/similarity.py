"""How alike are two attribution maps, as before and after an attack, or of two networks?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.errors import InputError
from lightning_modules.host import where_float64_is
from lightning_modules.methods.maps import magnitude, relative_magnitude, shows_something


class Ranking:
    """The pixels of maps, ranked by their magnitudes: made once of a map that is compared with several others.

    Args:
        attribution: Maps ``(N, C, H, W)``.

    Attributes:
        ranks: Of each pixel, its rank minus the mean of all ranks, float64 ``(N, H * W)``. Equal pixels share their
            mean rank.
        ordered: The same, the lowest first.
        usable: Which maps rank something, as they are finite and not constant: bool ``(N,)``.
        shape: Of the maps.

    Example:
        >>> ranking = Ranking(torch.tensor([1.0, 5, 5, 9]).view(1, 1, 2, 2))
        >>> ranking.ranks
        tensor([[-1.5000,  0.0000,  0.0000,  1.5000]], dtype=torch.float64)
        >>> rank_correlation(ranking, torch.tensor([1.0, 6, 6, 7]).view(1, 1, 2, 2))
        tensor([1.], dtype=torch.float64)
    """

    def __init__(self, attribution: Tensor) -> None:
        self.shape = attribution.shape
        flat = where_float64_is(_comparable(attribution).flatten(1))
        self.usable = shows_something(flat)
        values, order = flat.nan_to_num().sort(1)
        # Equal values are a group, of which each has twice the mean of its ranks, counted from 0.
        group = F.pad((values[:, 1:] > values[:, :-1]).long(), (1, 0)).cumsum(1)
        size = torch.zeros_like(group).scatter_add_(1, group, torch.ones_like(group))
        twice = 2 * size.cumsum(1) - size - flat.shape[1]
        self.ordered = twice.gather(1, group).double() / 2
        self.ranks = torch.empty_like(self.ordered).scatter_(1, order, self.ordered)

    def top(self, k: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """How much each pixel belongs to the ``k`` largest ones.

        Returns:
            Twice, which pixels, bool ``(N, H * W)``, and how much, float64 ``(N,)``: those that are larger than the
            least of the ``k``, wholly; and those that tie with it, in equal parts.
        """
        least = self.ordered[:, -k, None]
        above, tied = self.ranks > least, self.ranks == least
        share = (k - above.sum(1)).double() / tied.sum(1)
        return (above, torch.ones_like(share)), (tied, share)


Maps = Tensor | Ranking
"""Maps ``(N, C, H, W)``, or what was ranked of them."""


def rank_correlation(a: Maps, b: Maps) -> Tensor:
    """Spearman's rank correlation of the pixels' magnitudes, in [-1, 1]; float64 ``(N,)``.

    Equal pixels share their mean rank. NaN where a map is constant or not finite, as it then ranks nothing.

    Args:
        a: Maps ``(N, C, H, W)``, or their :class:`Ranking`.
        b: Maps of the same images and size, or their ranking.

    Reference: Ghorbani, Abid & Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019.

    Example:
        >>> a, b = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2), torch.tensor([1.0, 3, 2, 9]).view(1, 1, 2, 2)
        >>> rank_correlation(a, b)
        tensor([0.8000], dtype=torch.float64)
    """
    a, b = _ranked(a, b)
    # All sums are of multiples of 1/4 below 2^51, and so exact in any order, for maps of up to 300,000 pixels.
    squares = [torch.linalg.vecdot(of.ranks, of.ranks) for of in (a, b)]
    correlation = torch.linalg.vecdot(a.ranks, b.ranks) / (squares[0] * squares[1]).sqrt()
    return correlation.where(a.usable & b.usable, torch.nan)


def top_overlap(a: Maps, b: Maps, share: float = 0.15) -> Tensor:
    """How much of the top ``share`` of the pixels two maps have in common, in [0, 1]; float64 ``(N,)``.

    Where pixels tie for the last places of a top, each belongs to it in an equal part, and what two tops have in
    common is the smaller part. (Grad-CAM is often zero over most of the image.) NaN where a map is constant or not
    finite.

    Args:
        a: Maps ``(N, C, H, W)``, or their :class:`Ranking`.
        b: Maps of the same images and size, or their ranking.
        share: Fraction of the pixels, in (0, 1].

    Raises:
        InputError: If ``share`` is out of its range.

    Reference: Ghorbani, Abid & Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019 (top-k intersection).

    Example:
        >>> a, b = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2), torch.tensor([1.0, 3, 2, 9]).view(1, 1, 2, 2)
        >>> top_overlap(a, b, share=0.5)
        tensor([0.5000], dtype=torch.float64)
    """
    if not 0 < share <= 1:
        raise InputError(f"share must lie in (0, 1], got {share}.")
    a, b = _ranked(a, b)
    k = max(1, round(share * a.ordered.shape[1]))
    in_common = torch.zeros_like(a.ordered[:, 0])
    for of_a, part_a in a.top(k):
        for of_b, part_b in b.top(k):
            in_common += torch.minimum(part_a, part_b) * (of_a & of_b).sum(1)
    return (in_common / k).where(a.usable & b.usable, torch.nan)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    r"""SSIM of the magnitudes of two batches of maps, each scaled to a maximum of 1; at most 1, ``(N,)``.

    .. math:: \text{SSIM} = \overline{\frac{(2 \mu_a \mu_b + c_1) (2 \sigma_{ab} + c_2)}{(\mu_a^2 + \mu_b^2 + c_1)
        (\sigma_a^2 + \sigma_b^2 + c_2)}}, \quad c_1 = 0.01^2, \ c_2 = 0.03^2

    the mean over the windows that lie within the map, so that nothing is made up beyond its border. Windows are
    weighted by a Gaussian of 1.5 pixels and are 11 pixels wide, or the largest odd number that fits in a smaller map.
    Where both maps are dark they are alike: maps of different images easily have an SSIM of 0.8. NaN where a
    magnitude is constant or not finite.

    Reference: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.

    Example:
        >>> maps = torch.rand(2, 1, 16, 16)
        >>> structural_similarity(maps, 3 * maps)
        tensor([1., 1.])
    """
    first, second = (relative_magnitude(maps) for maps in (a, b))
    usable = shows_something(first.flatten(1)) & shows_something(second.flatten(1))
    dtype = torch.promote_types(first.dtype, second.dtype)
    x, y = ((of / of.amax((1, 2), keepdim=True)).nan_to_num(0, 0, 0).to(dtype) for of in (first, second))
    rows, columns = (_windows(side, x) for side in x.shape[1:])
    with torch.autocast(x.device.type, enabled=False):
        mean_x, mean_y, square_x, square_y, product = (rows @ of @ columns.T for of in (x, y, x * x, y * y, x * y))
    both, means = mean_x * mean_y, mean_x.square() + mean_y.square()
    variances = (square_x + square_y - means).clamp_min(0)
    similarity = (2 * both + 0.01**2) * (2 * (product - both) + 0.03**2)
    similarity = similarity / ((means + 0.01**2) * (variances + 0.03**2))
    return similarity.mean((1, 2)).where(usable, torch.nan)


def _windows(side: int, like: Tensor) -> Tensor:
    """A row of weights for each window of a side that lies within it, ``(windows, side)``; each adds up to 1."""
    reach = (min(11, side - 1 + side % 2) - 1) // 2
    middles = torch.arange(reach, side - reach, device=like.device, dtype=like.dtype)
    off = torch.arange(side, device=like.device, dtype=like.dtype) - middles[:, None]
    weights = (-off.square() / (2 * 1.5**2)).exp() * (off.abs() <= reach)
    return weights / weights.sum(1, keepdim=True)


def _ranked(a: Maps, b: Maps) -> tuple[Ranking, Ranking]:
    rankings = [of if isinstance(of, Ranking) else Ranking(of) for of in (a, b)]
    first, second = (ranking.shape for ranking in rankings)
    if (first[0], *first[2:]) != (second[0], *second[2:]):
        raise InputError(f"The maps must be of one size, got {tuple(first)} and {tuple(second)}.")
    return rankings[0], rankings[1]


def _comparable(attribution: Tensor) -> Tensor:
    """The magnitudes of pixels, up to a factor for each map, at least float32: ``(N, H, W)``."""
    if attribution.shape[1] > 1:
        return relative_magnitude(attribution)  # channels are added up
    return magnitude(attribution.to(torch.promote_types(attribution.dtype, torch.float32)))
