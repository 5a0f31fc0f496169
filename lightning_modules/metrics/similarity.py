"""How far has a map moved? Similarity of two attribution maps of one image, as before and after an attack."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.methods.maps import relative_magnitude, shows_something


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of the pixels' magnitudes, in [-1, 1]; float64 ``(N,)``.

    Equal pixels share their mean rank. NaN where a map is constant or not finite, as it then ranks nothing.

    Args:
        a: Maps ``(N, C, H, W)``.
        b: Maps of the same images and size.

    Reference: Ghorbani, Abid & Zou, "Interpretation of Neural Networks Is Fragile", AAAI 2019.

    Example:
        >>> a, b = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2), torch.tensor([1.0, 3, 2, 9]).view(1, 1, 2, 2)
        >>> rank_correlation(a, b)
        tensor([0.8000], dtype=torch.float64)
    """
    a, b, usable = _flat_magnitudes(a, b)
    x, y = _centred_ranks(a), _centred_ranks(b)
    correlation = (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()
    return correlation.where(usable, torch.nan)


def top_overlap(a: Tensor, b: Tensor, share: float = 0.15) -> Tensor:
    """How much of the top ``share`` of the pixels two maps have in common, in [0, 1]; float64 ``(N,)``.

    Where pixels tie for the last places of a top, each belongs to it in an equal part, and what two tops have in
    common is the smaller part. (Grad-CAM is often zero over most of the image.) NaN where a map is constant or not
    finite.

    Args:
        a: Maps ``(N, C, H, W)``.
        b: Maps of the same images and size.
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
    a, b, usable = _flat_magnitudes(a, b)
    k = max(1, round(share * a.shape[1]))
    return (torch.minimum(_top(a, k), _top(b, k)).sum(1) / k).where(usable, torch.nan)


def _flat_magnitudes(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps' magnitudes ``(N, H * W)``, and where both rank something, bool ``(N,)``."""
    flat = [relative_magnitude(x).flatten(1) for x in (a, b)]
    if flat[0].shape != flat[1].shape:
        raise InputError(f"The maps must be of one size, got {tuple(a.shape)} and {tuple(b.shape)}.")
    usable = shows_something(flat[0]) & shows_something(flat[1])
    return flat[0].nan_to_num(), flat[1].nan_to_num(), usable


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks of each row, from 1, minus their mean; equal values share their mean rank. float64 ``(N, n)``."""
    ordered = values.sort(1).values
    first, last = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    return (first + 1 + last).double() / 2 - (values.shape[1] + 1) / 2


def _top(values: Tensor, k: int) -> Tensor:
    """How much each value of a row belongs to its ``k`` largest, in [0, 1], adding up to ``k``. float64 ``(N, n)``."""
    threshold = values.topk(k, dim=1).values[:, -1:]
    above, tied = values > threshold, values == threshold
    left = k - above.sum(1, keepdim=True)
    return above.double() + tied.double() * left / tied.sum(1, keepdim=True)
