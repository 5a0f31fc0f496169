"""The mean curve of each method, from the lists that the rows hold of a map each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.stored import groups_of


def mean_curves(table: Rows) -> dict[str, list[float | None] | None]:
    """The mean of each method's lists, point by point; a missing point is left out, and None where all miss it.

    None too instead of a curve where a method has no list at all. Rows are read part by part, in any order: the sums
    are kept to twice float64's digits, so that how rows are split does not change the mean.

    Args:
        table: Two columns: ``method``, and that of the lists.
    """
    name = next(name for name in table.schema.names if name != "method")
    sums: dict[str, CurveSum] = {}
    for batch in table.to_batches():
        lists = batch.column(batch.schema.get_field_index(name))
        for method, of in groups_of(pa.chunked_array([batch.column(batch.schema.get_field_index("method"))])).items():
            sums.setdefault(method, CurveSum()).add(lists.take(pa.array(of)))
    return {method: of.mean() for method, of in sums.items()}


class CurveSum:
    """The sum of lists of numbers, point by point, and of how many; lists may end earlier than others."""

    def __init__(self) -> None:
        self.sum = np.zeros((2, 0))
        self.count = np.zeros(0, np.int64)
        self.n_lists = 0

    def add(self, lists: pa.ListArray) -> None:
        """Adds a batch of lists; null, and null within a list, are nothing."""
        lists = lists.drop_null()
        if not len(lists):
            return
        self.n_lists += len(lists)
        lengths = pc.list_value_length(lists).to_numpy()
        points = np.full((len(lists), max(lengths.max(), len(self.count))), np.nan)
        flat = lists.flatten().to_numpy(zero_copy_only=False)
        points[np.arange(points.shape[1]) < lengths[:, None]] = flat
        is_there = ~np.isnan(points)
        points[~is_there] = 0
        grown = points.shape[1] - len(self.count)
        self.count = np.pad(self.count, (0, grown)) + is_there.sum(0)
        high, low = _twofold_sum(np.concatenate([np.pad(self.sum[:1], ((0, 0), (0, grown))), points]))
        self.sum = np.stack([high, low + np.pad(self.sum[1], (0, grown))])

    def mean(self) -> list[float | None] | None:
        if not self.n_lists:
            return None
        high, low = self.sum
        total = np.where(np.isfinite(high), high + low, high)
        return [float(value / n) if n else None for value, n in zip(total, self.count)]


def _twofold_sum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of float64 rows ``(n, points)``, and what rounding took from it, which is added up beside.

    Reference: Knuth, "The Art of Computer Programming", volume 2, 4.2.2, theorem B (the sum of two and its error).
    """
    lost = np.zeros(rows.shape[1])
    with np.errstate(invalid="ignore"):  # of infinite values, whose sum is told as it is
        while len(rows) > 1:
            if len(rows) % 2:
                rows = np.concatenate([rows, np.zeros_like(rows[:1])])
            a, b = rows[::2], rows[1::2]
            rows = a + b
            of_b = rows - a
            lost += ((a - (rows - of_b)) + (b - of_b)).sum(0)
    return rows[0], lost
