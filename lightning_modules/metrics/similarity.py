"""How alike are two attribution maps, as before and after an attack, or of two networks?"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.host import lies_on_host, where_float64_is
from lightning_modules.methods.maps import magnitude, relative_magnitude, shows_something


class Ranking:
    """The pixels of maps, ranked by their magnitudes: made once of a map that is compared with several others.

    Args:
        attribution: Maps ``(N, C, H, W)``.

    Attributes:
        order: Where the pixels lie, the lowest first: long ``(N, H * W)``.
        ordered: Of each, in this order, its rank minus the mean of all ranks, float64 ``(N, H * W)``. Equal pixels
            share their mean rank.
        squared: The sum of their squares, float64 ``(N,)``.
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
        on_host = lies_on_host(flat) and flat.dtype == torch.float32
        self.order, self.ordered = (_ranked_on_host if on_host else _ranked_on_device)(flat)
        self.squared = _products(self.ordered, self.ordered)
        self._met: tuple[Ranking, Tensor] | None = None

    @cached_property
    def ranks(self) -> Tensor:
        """The ranks where the pixels lie, float64 ``(N, H * W)``."""
        return torch.empty_like(self.ordered).scatter_(1, self.order, self.ordered)

    def ranks_in(self, other: Ranking) -> Tensor:
        """The ranks that the pixels have in another ranking, in the order of this one; kept for the next comparison."""
        if self._met is None or self._met[0] is not other:
            self._met = other, other.ranks.gather(1, self.order)
        return self._met[1]

    def top(self, k: int) -> Top:
        """The ``k`` largest pixels."""
        least = self.ordered[:, -k, None].contiguous()
        first = torch.searchsorted(self.ordered, least)
        n_above = self.ordered.shape[1] - torch.searchsorted(self.ordered, least, right=True)
        n_tied = self.ordered.shape[1] - first - n_above
        return Top(least, first, torch.cat([torch.ones_like(least), (k - n_above).double() / n_tied], 1))


class Top(NamedTuple):
    """The largest pixels of maps, with all that tie for the last places.

    Attributes:
        least: The rank of the last of them, float64 ``(N, 1)``.
        first: How many pixels are less: long ``(N, 1)``.
        shares: How much a pixel that is greater, and one that ties, belongs to them: float64 ``(N, 2)``.
    """

    least: Tensor
    first: Tensor
    shares: Tensor


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
    correlation = _products(b.ranks_in(a), b.ordered) / (a.squared * b.squared).sqrt()
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
    top_a, top_b = a.top(k), b.top(k)
    # What no map has among its largest need not be looked at, where it costs no wait to know how much that is.
    start = int(top_b.first.amin()) if lies_on_host(top_b.first) and len(top_b.first) else 0
    in_a, in_b = b.ranks_in(a)[:, start:], b.ordered[:, start:]
    of_a, of_b = ((of > least, of == least) for of, least in ((in_a, top_a.least), (in_b, top_b.least)))
    n_in_both = torch.stack([(one & other).sum(1) for one in of_a for other in of_b], 1).view(-1, 2, 2)
    in_common = torch.minimum(top_a.shares[:, :, None], top_b.shares[:, None]) * n_in_both
    return (in_common.sum((1, 2)) / k).where(a.usable & b.usable, torch.nan)


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


def _ranked_on_device(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where the values of each row, all at least 0, lie, the lowest first: long ``(N, n)``; and their ranks.

    These are in that order, minus their mean: float64 ``(N, n)``. Equal values share their mean rank; what is not
    finite ranks somewhere.
    """
    ordered, order = values.nan_to_num().sort(1)
    is_next = torch.zeros_like(ordered, dtype=torch.bool)
    torch.gt(ordered[:, 1:], ordered[:, :-1], out=is_next[:, 1:])
    group = is_next.cumsum(1)
    size = torch.zeros_like(group).scatter_add_(1, group, torch.ones_like(group))
    # Twice the mean of the group's ranks, counted from 0, minus twice the mean of all.
    twice = 2 * size.cumsum(1) - size - values.shape[1]
    return order, twice.gather(1, group).double() / 2


def _ranked_on_host(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same of float32, faster on a processor: map by map, which the processor's caches hold, by NumPy's sort.

    That sorts whole numbers with the processor's vector instructions. Each is the 32 bits of a value, which grow as
    values from 0 on do, followed by where the value stands. Zeros, of which Grad-CAM's maps are full, need no sorting.
    """
    flat = values.numpy()
    n = flat.shape[1]
    order, ordered = np.empty(flat.shape, np.int64), np.empty(flat.shape)
    ranks_of_distinct = np.arange(n) - (n - 1) / 2
    # For all maps the same, so that it stays in the caches. The lower half of a key lies first in the memory.
    room, all_places = np.empty(n, "<i8"), np.arange(n, dtype=np.int32)
    for of_map, order_of_map, ordered_of_map in zip(flat, order, ordered):
        zeros = np.flatnonzero(of_map == 0)
        places: np.ndarray = all_places
        n_zeros = len(zeros)
        if n_zeros:
            places = np.flatnonzero(of_map)
            of_map = of_map[places]
        keys = room[: n - n_zeros]
        halves = keys.view("<i4")
        bits = halves[1::2]
        halves[::2], bits[:] = places, of_map.view(np.int32)
        keys.sort()
        order_of_map[:n_zeros] = zeros
        np.bitwise_and(keys, 0xFFFFFFFF, out=order_of_map[n_zeros:])
        ordered_of_map[:] = ranks_of_distinct
        ordered_of_map[:n_zeros] = (n_zeros - n) / 2  # their mean
        _share_ranks(ordered_of_map[n_zeros:], bits[1:] == bits[:-1])
    return torch.from_numpy(order), torch.from_numpy(ordered)


def _share_ranks(ordered: np.ndarray, tied: np.ndarray) -> None:
    """Gives those that are equal their mean rank.

    Args:
        ordered: Ranks of distinct values, the lowest first, ``(n,)``; is written to.
        tied: Whether the next value is equal, bool ``(n - 1,)``.
    """
    with_next = np.zeros(len(ordered) + 1, bool)
    with_next[1:-1] = tied
    ends = np.flatnonzero(with_next[1:] != with_next[:-1])
    first, last = ends[::2], ends[1::2]
    means = np.repeat((ordered[first] + ordered[last]) / 2, last - first + 1)
    np.place(ordered, with_next[1:] | with_next[:-1], means)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """The sum of the products of each row of float64 ``(N, n)`` with another's: ``(N,)``."""
    if lies_on_host(x) and len(x):
        return torch.stack([of @ other for of, other in zip(x, y)])
    return (x[:, None] @ y[:, :, None])[:, 0, 0]
