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
        order, is_next = _sorted(flat.nan_to_num())
        self.ordered = _shared_ranks(is_next)
        self.ranks = torch.empty_like(self.ordered).scatter_(1, order, self.ordered)


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
    correlation = _products(a.ranks, b.ranks) / (_products(a.ordered) * _products(b.ordered)).sqrt()
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
    return (torch.minimum(_top(a, k), _top(b, k)).sum(1) / k).where(a.usable & b.usable, torch.nan)


def _ranked(a: Maps, b: Maps) -> tuple[Ranking, Ranking]:
    rankings = [of if isinstance(of, Ranking) else Ranking(of) for of in (a, b)]
    first, second = (ranking.shape for ranking in rankings)
    if (first[0], *first[2:]) != (second[0], *second[2:]):
        raise InputError(f"The maps must be of one size, got {tuple(first)} and {tuple(second)}.")
    return rankings[0], rankings[1]


def _sorted(values: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the values of each row, all at least 0, the lowest first: long ``(N, n)``.

    And which of them, in that order, are greater than the one before, bool ``(N, n)``; the first is not.
    """
    if values.device.type == "cpu" and values.dtype == torch.float32:
        return _sorted_as_whole_numbers(values)
    return _sorted_on_device(values)


def _sorted_on_device(values: Tensor) -> tuple[Tensor, Tensor]:
    ordered, order = values.sort(1)
    return order, _is_next(ordered)


def _sorted_as_whole_numbers(values: Tensor) -> tuple[Tensor, Tensor]:
    """The same, several times faster: NumPy sorts whole numbers with the processor's vector instructions.

    Each is the 32 bits of a value, which grow as values from 0 on do, followed by where the value stands.
    """
    bits = (values + 0.0).view(torch.int32).long()  # -0 is 0
    keys = bits.bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[1]))
    ordered = torch.from_numpy(np.sort(keys.numpy(), axis=1))
    return ordered & 0xFFFFFFFF, _is_next(ordered >> 32)


def _is_next(ordered: Tensor) -> Tensor:
    is_next = torch.zeros_like(ordered, dtype=torch.bool)
    torch.gt(ordered[:, 1:], ordered[:, :-1], out=is_next[:, 1:])
    return is_next


def _shared_ranks(is_next: Tensor) -> Tensor:
    """Ranks of sorted rows minus their mean, those of equal values their mean rank: float64 ``(N, n)``."""
    group = is_next.cumsum(1)
    size = torch.zeros_like(group).scatter_add_(1, group, torch.ones_like(group))
    # Twice the mean of the group's ranks, counted from 0, minus twice the mean of all.
    twice = 2 * size.cumsum(1) - size - is_next.shape[1]
    return twice.gather(1, group).double() / 2


def _products(x: Tensor, y: Tensor | None = None) -> Tensor:
    """The sum of the products of each row of float64 ``(N, n)`` with itself, or another's: ``(N,)``."""
    y = x if y is None else y
    return (x[:, None] @ y[:, :, None])[:, 0, 0]


def _top(ranking: Ranking, k: int) -> Tensor:
    """How much each pixel of a map belongs to the ``k`` largest, in [0, 1], adding up to ``k``. float64 ``(N, n)``."""
    ranks, threshold = ranking.ranks, ranking.ordered[:, -k, None]
    above, tied = ranks > threshold, ranks == threshold
    part = (k - above.sum(1, keepdim=True)).double() / tied.sum(1, keepdim=True)
    return torch.where(tied, part, above.double())
