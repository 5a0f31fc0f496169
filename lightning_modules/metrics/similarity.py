"""How far has a map moved? Similarity of two attribution maps of one image, as before and after an attack."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.methods.maps import relative_magnitude, shows_something


class Ranking:
    """The pixels of maps, ranked by their magnitudes: made once of a map that is compared with several others.

    Args:
        attribution: Maps ``(N, C, H, W)``.

    Attributes:
        ranks: Of each pixel its rank minus the mean of all ranks, float64 ``(N, H * W)``. Equal pixels share their mean
            rank.
        ordered: The same, the lowest first.
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
        flat = relative_magnitude(attribution).flatten(1)
        self.shape = attribution.shape
        self.usable = shows_something(flat)
        on_host = flat.device.type == "cpu" and flat.dtype == torch.float32
        self.ranks, self.ordered = (_ranked_on_host if on_host else _ranked_on_device)(flat)
        self.squared = _products(self.ordered, self.ordered)
        self._tops: dict[int, tuple[Tensor, Tensor]] = {}

    def top(self, k: int) -> tuple[Tensor, Tensor]:
        """Which pixels belong to the ``k`` largest, and how much; kept for the next comparison.

        Returns:
            Of each pixel whether it is greater than the least of these, and whether it is equal to it, 0 or 1, float64
            ``(N, 2, H * W)``; and how much the former and the latter belong to them, ``(N, 2)``: adding up to ``k``.
        """
        if k not in self._tops:
            threshold = self.ordered[:, -k, None]
            is_in = torch.stack([self.ranks > threshold, self.ranks == threshold], 1).double()
            n_above, n_tied = is_in.sum(2).unbind(1)
            self._tops[k] = is_in, torch.stack([torch.ones_like(n_above), (k - n_above) / n_tied], 1)
        return self._tops[k]


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
    correlation = _products(a.ranks, b.ranks) / (a.squared * b.squared).sqrt()
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
    k = max(1, round(share * a.ranks.shape[1]))
    (in_a, part_a), (in_b, part_b) = a.top(k), b.top(k)
    n_in_both = in_a @ in_b.mT
    in_common = torch.minimum(part_a[:, :, None], part_b[:, None]) * n_in_both
    return (in_common.sum((1, 2)) / k).where(a.usable & b.usable, torch.nan)


def _ranked(a: Maps, b: Maps) -> tuple[Ranking, Ranking]:
    rankings = [of if isinstance(of, Ranking) else Ranking(of) for of in (a, b)]
    first, second = (ranking.shape for ranking in rankings)
    if (first[0], *first[2:]) != (second[0], *second[2:]):
        raise InputError(f"The maps must be of one size, got {tuple(first)} and {tuple(second)}.")
    return rankings[0], rankings[1]


def _ranked_on_device(values: Tensor) -> tuple[Tensor, Tensor]:
    """The ranks of the values of each row, all at least 0, minus their mean: float64 ``(N, n)``.

    Equal values share their mean rank; what is not finite ranks somewhere. And the same, the lowest first.
    """
    ordered, order = values.nan_to_num().sort(1)
    is_next = torch.zeros_like(ordered, dtype=torch.bool)
    torch.gt(ordered[:, 1:], ordered[:, :-1], out=is_next[:, 1:])
    group = is_next.cumsum(1)
    size = torch.zeros_like(group).scatter_add_(1, group, torch.ones_like(group))
    # Twice the mean of the group's ranks, counted from 0, minus twice the mean of all.
    twice = 2 * size.cumsum(1) - size - values.shape[1]
    ranks = twice.gather(1, group).double() / 2
    return torch.empty_like(ranks).scatter_(1, order, ranks), ranks


def _ranked_on_host(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same of float32, faster on a processor: map by map, which the processor's caches hold, by NumPy's sort.

    That sorts whole numbers with the processor's vector instructions. Each is the 32 bits of a value, which grow as
    values from 0 on do, followed by where the value stands. Zeros, of which Grad-CAM's maps are full, need no sorting.
    """
    flat = values.nan_to_num().numpy()
    ranks, ordered = np.empty(flat.shape), np.empty(flat.shape)
    ranks_of_distinct = np.arange(flat.shape[1]) - (flat.shape[1] - 1) / 2
    for of_map, ranks_of_map, ordered_of_map in zip(flat, ranks, ordered):
        ordered_of_map[:] = ranks_of_distinct
        places = np.flatnonzero(of_map)
        n_zeros = len(of_map) - len(places)
        keys = (of_map[places].view(np.int32).astype(np.int64) << 32) | places
        keys.sort()
        if n_zeros:
            ranks_of_map[:] = ordered_of_map[:n_zeros] = (ordered_of_map[0] + ordered_of_map[n_zeros - 1]) / 2
        bits = keys >> 32
        _share_ranks(ordered_of_map[n_zeros:], np.flatnonzero(bits[1:] == bits[:-1]))
        ranks_of_map[keys & 0xFFFFFFFF] = ordered_of_map[n_zeros:]
    return torch.from_numpy(ranks), torch.from_numpy(ordered)


def _share_ranks(ordered: np.ndarray, tied: np.ndarray) -> None:
    """Gives those that are equal their mean rank.

    Args:
        ordered: Ranks of distinct values, the lowest first, ``(n,)``; is written to.
        tied: Where the next value is equal, in order.
    """
    if not len(tied):
        return
    is_first = np.concatenate([[True], np.diff(tied) > 1])
    group, first = np.cumsum(is_first) - 1, tied[is_first]
    size = np.bincount(group) + 1
    mean = (ordered[first] + ordered[first + size - 1]) / 2
    ordered[tied] = ordered[tied + 1] = mean[group]


def _products(x: Tensor, y: Tensor) -> Tensor:
    """The sum of the products of each row of float64 ``(N, n)`` with another's: ``(N,)``."""
    return (x[:, None] @ y[:, :, None])[:, 0, 0]
