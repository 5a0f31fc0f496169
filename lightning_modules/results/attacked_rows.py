"""The columns and rows of attacked images, from what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.attacks.budgets import format_eps
from lightning_modules.metrics.similarity import Ranking, rank_correlation, top_overlap
from lightning_modules.results.rows import LogitStats, image_columns, with_columns
from lightning_modules.results.storage import Row

ATTACK_FIELDS = [
    pa.field("target", pa.int64()),
    pa.field("eps", pa.float64()),
    pa.field("success", pa.bool_()),
    pa.field("smallest_eps", pa.float64()),
    pa.field("probability_label", pa.float64()),
    pa.field("linf", pa.float64()),
    pa.field("l2", pa.float64()),
    pa.field("saturated", pa.bool_()),
    pa.field("vanished", pa.bool_()),
]
"""Columns of an attacked image. ``success`` is null where there was nothing to attack: the prediction of the clean
image was wrong already or, if the attack is targeted, right already. ``smallest_eps`` is that of the sweep that
succeeds, null if none does. ``linf`` and ``l2`` are measured."""


ROUNDED_FIELDS = [pa.field("success_rounded", pa.bool_()), pa.field("linf_rounded", pa.float64())]
"""Of the attacked image in 8 bits: whether it still succeeds, and how far it then lies from the clean one, up to half a
step beyond the budget. Null of the clean image."""

LIKENESS = {"rank_correlation": rank_correlation, "top_overlap": top_overlap}
RANK_CORRELATION, TOP_OVERLAP = (f".{name}" for name in LIKENESS)
"""After a method's name: the columns of how alike its maps of the image and of the attacked one are."""

UNDER_NOISE, OF_ANOTHER, EMPTY = ".noise", ".floor", ".empty"
"""After a method's name: before the former, of the image under noise of the same budget and of another image, in place
of the attacked one; and whether the map of the row's own image shows nothing."""


def likeness_fields(method: str) -> list[pa.Field]:
    """The columns of how alike a method's maps are."""
    likeness = [f"{method}{which}.{name}" for which in ("", UNDER_NOISE, OF_ANOTHER) for name in LIKENESS]
    return [*(pa.field(name, pa.float64()) for name in likeness), pa.field(method + EMPTY, pa.bool_())]


def likeness_columns(
    before: Mapping[str, Ranking], after: Mapping[str, Tensor], which: str = "", *, with_empty: bool = False
) -> dict[str, Tensor]:
    """How alike the maps of each method are, ``(N,)`` for each column; NaN where a map ranks nothing.

    Args:
        before: Of the clean images.
        after: Maps ``(N, C, H, W)``.
        which: What they are of, as :func:`likeness_fields` has it.
        with_empty: Whether there is a column of those that show nothing.
    """
    columns: dict[str, Tensor] = {}
    for method, ranking in before.items():
        other = Ranking(after[method])
        columns |= {f"{method}{which}.{name}": likeness(ranking, other) for name, likeness in LIKENESS.items()}
        if with_empty:
            columns[method + EMPTY] = ~other.usable
    return columns


class AtBudget(NamedTuple):
    """What was measured of N images under a budget.

    Attributes:
        stats: What rows need of their logits.
        is_lost: Of which the attack gave no pixels, bool ``(N,)``.
        is_target: Which are predicted to be the class attacked, bool ``(N,)``.
        is_within: Which kept to the attack's bounds, bool ``(N,)``.
        columns: Further columns, ``(N,)`` each.
        also: Columns like ``success`` for what else is made of the images -> which of these are predicted to be the
            class attacked, ``(N,)``: 1, 0, or NaN = unknown.
    """

    stats: LogitStats
    is_lost: Tensor
    is_target: Tensor
    is_within: Tensor
    columns: dict[str, Any]
    also: dict[str, Tensor]


def attacked_rows(
    batch: Batch,
    names: Sequence[str],
    eps: Sequence[float],
    targeted: bool,
    columns: Mapping[str, Tensor],
    measured: Sequence[AtBudget],
) -> list[Row]:
    """The rows of a batch under all budgets, those of the clean images first.

    Args:
        batch: The images.
        names: Of the network's classes.
        eps: The k budgets.
        targeted: Whether the attack leads to its class.
        columns: What is the same under all budgets, ``(N,)`` each; on the host.
        measured: What was measured of the clean images, and under each budget: 1 + k; on the host.
    """
    is_target = torch.stack([at_budget.is_target for at_budget in measured])
    success: list[list[bool]] = (is_target == targeted).tolist()
    smallest = _smallest_eps(success, eps)
    rows: list[Row] = []
    for budget, fooled, at_budget in zip([0.0, *eps], success, measured):
        images = _image_columns(at_budget, batch, names, budget)
        # Where the clean image's prediction is as the attack wants it, there is nothing to attack.
        own = {
            "eps": [budget] * len(images),
            "success": [None if nothing else is_fooled for nothing, is_fooled in zip(success[0], fooled)],
            "smallest_eps": smallest,
        }
        for name, predicted in at_budget.also.items():
            own[name] = [
                None if nothing or one != one else bool(one) == targeted
                for nothing, one in zip(success[0], predicted.tolist())
            ]
        rows += with_columns(images, {**columns, **own, **at_budget.columns})
    return rows


def _image_columns(at_budget: AtBudget, batch: Batch, names: Sequence[str], eps: float) -> list[Row]:
    """The columns of the images under a budget; the error of a failed one names the budget."""
    rows = image_columns(at_budget.stats, batch, names)
    for row, is_lost in zip(rows, at_budget.is_lost.tolist()):
        if is_lost:
            row |= {"status": "failed", "error": "the attack gives pixels that are NaN"}
        if row["status"] == "failed" and eps:
            row["error"] += f", with eps {format_eps(eps)}"
    return rows


def _smallest_eps(success: Sequence[Sequence[bool]], sweep: Sequence[float]) -> list[float | None]:
    """For each image the smallest budget that fools it; None if none does, or there was nothing to attack."""
    return [
        next((eps for eps, fooled in zip(sweep, fooled_at[1:]) if fooled), None) if not fooled_at[0] else None
        for fooled_at in zip(*success)
    ]
