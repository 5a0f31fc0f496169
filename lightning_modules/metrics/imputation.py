"""Pixels that are removed, filled in from those around them: ROAD's linear imputation, solved on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

N_STEPS = 20
"""Steps of the solver, after which a hole at 224 px is filled to 1e-8. None stops earlier, as that would wait."""

TOLERANCE = 1e-6
"""How far each pixel may be from what its neighbours ask for; float32 comes nearer."""


def imputed(images: Tensor, is_removed: Tensor, n_steps: int = N_STEPS) -> Tensor:
    r"""The images with each removed pixel the weighted mean of its neighbours, removed ones too: ``(N, C, H, W)``.

    .. math:: x_{i,j} = \sum_{(u, v)} w_{u,v} \, x_{i+u, j+v} \Big/ \sum_{(u, v)} w_{u,v}

    over the eight neighbours inside the image, with weight 1/6 for those beside and 1/12 for those at the corners. The
    system is solved by conjugate gradients; a step is made good on coarser and coarser grids first (multigrid), so that
    it sees across large holes. Nothing is waited for. An image of which the equations do not hold then is NaN.

    Args:
        images: Pixels, ``(N, C, H, W)``.
        is_removed: bool ``(N, H, W)``; some pixels of each image should stay, as nothing is known without: NaN.
        n_steps: Steps of the solver.

    References: Rong et al., "A Consistent and Efficient Evaluation Strategy for Attribution Methods", ICML 2022 (the
    system); Tatebe, "The multigrid preconditioned conjugate gradient method", 1993 (the solver).
    """
    # Neither autocast nor a gradient: in bfloat16 the solution would not be one.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        hole = is_removed[:, None].to(images.dtype)
        known = images * (1 - hole)
        grids = _grids(hole)
        fill, is_solved = _solved(grids, hole * _around(known), n_steps)
        return (known + fill).where(is_solved & ~is_removed.all((1, 2))[:, None, None, None], torch.nan)


@dataclass(frozen=True)
class _Grid:
    """A grid of the system.

    Attributes:
        hole: 1 where a pixel is unknown, 0 elsewhere, ``(N, 1, h, w)``.
        weight: Of the neighbours inside the image, ``(h, w)``.
        rows: From the rows of the next coarser grid to these, by linear interpolation, ``(h, h')``.
        columns: The same of columns, ``(w, w')``.
    """

    hole: Tensor
    weight: Tensor
    rows: Tensor
    columns: Tensor

    def times(self, values: Tensor) -> Tensor:
        """The system's matrix times values that are 0 where pixels are known."""
        return self.hole * (self.weight * values - _around(values))


def _around(values: Tensor) -> Tensor:
    """The weighted sum of the eight neighbours of each pixel; beyond the border there are zeros."""
    padded = F.pad(values, (1, 1, 1, 1))
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :] - 4 * values) / 12


def _grids(hole: Tensor) -> list[_Grid]:
    """From the images' own grid to one of a single pixel; a coarse pixel is unknown where all below it are."""
    grids = []
    while True:
        height, width = hole.shape[2:]
        weight = _around(torch.ones_like(hole[0, 0]))
        grids.append(_Grid(hole, weight, _interpolation(height, hole), _interpolation(width, hole)))
        if height == width == 1:
            return grids
        hole = 1 - F.max_pool2d(1 - hole, 2, ceil_mode=True)


def _interpolation(n: int, like: Tensor) -> Tensor:
    """From half as many values to ``n``, as a matrix."""
    every = torch.eye(-(-n // 2), device=like.device, dtype=like.dtype)[None]
    return F.interpolate(every, size=n, mode="linear", align_corners=False)[0].T.contiguous()


def _nearly_solved(grids: list[_Grid], right: Tensor) -> Tensor:
    """One V-cycle of multigrid: symmetric, so that conjugate gradients can build on it."""
    grid, *coarser = grids
    diagonal = grid.weight.clamp_min(1 / 12)
    values = right / diagonal
    if coarser:
        left = grid.rows.T @ (right - grid.times(values)) @ grid.columns * coarser[0].hole
        values = values + grid.hole * (grid.rows @ _nearly_solved(coarser, left) @ grid.columns.T)
    return values + (right - grid.times(values)) / diagonal


def _solved(grids: list[_Grid], right: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """The solution by preconditioned conjugate gradients, and of which images it is one, bool ``(N, 1, 1, 1)``."""
    values, error = torch.zeros_like(right), right
    better = direction = _nearly_solved(grids, error)
    product = _dot(error, better)
    for _ in range(n_steps):
        change = grids[0].times(direction)
        # Where nothing is left to solve, all of them are 0.
        step = _ratio(product, _dot(direction, change))
        values, error = values + step * direction, error - step * change
        better = _nearly_solved(grids, error)
        product, before = _dot(error, better), product
        direction = better + _ratio(product, before) * direction
    left = right - grids[0].times(values)
    return values, (left.abs() <= TOLERANCE).all(3, keepdim=True).all(2, keepdim=True).all(1, keepdim=True)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((2, 3), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b.where(b > 0, 1), 0)
