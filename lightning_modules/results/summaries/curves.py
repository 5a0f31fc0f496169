"""The mean curve of each method, from the lists that the rows hold of each map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE = 2**16


def mean_curves(lists: pa.ChunkedArray, groups: Mapping[str, np.ndarray]) -> dict[str, list[float | None] | None]:
    """The mean of the lists of each method, point by point; a missing point is left out, and None where all miss it.

    Lists may end earlier than others. A method without any list has None instead of a curve.

    Args:
        lists: A list for each row, or null.
        groups: Method -> numbers of its rows.
    """
    return {method: _mean_curve(lists, rows) for method, rows in groups.items()}


def _mean_curve(lists: pa.ChunkedArray, rows: np.ndarray) -> list[float | None] | None:
    sums, counts = np.zeros(0), np.zeros(0, np.int64)
    n_lists = 0
    for start in range(0, len(rows), ROWS_AT_ONCE):  # floats of all rows at once would take much memory
        part = lists.take(pa.array(rows[start : start + ROWS_AT_ONCE])).combine_chunks().drop_null()
        lengths = pc.list_value_length(part).to_numpy()
        values = part.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        point = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        is_known = ~np.isnan(values)
        n_points = max(len(sums), int(lengths.max(initial=0)))
        grown = n_points - len(sums)
        sums = np.pad(sums, (0, grown)) + np.bincount(point[is_known], values[is_known], n_points)
        counts = np.pad(counts, (0, grown)) + np.bincount(point[is_known], minlength=n_points)
        n_lists += len(part)
    if not n_lists:
        return None
    return [float(total / n) if n else None for total, n in zip(sums, counts)]
