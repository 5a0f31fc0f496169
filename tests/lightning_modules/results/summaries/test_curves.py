from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lightning_modules.results.storage import StoredRows, groups_of, part_name, write_part
from lightning_modules.results.summaries.attribution import mean_curve

SCHEMA = pa.schema(
    [pa.field("path", pa.string()), pa.field("method", pa.string()), pa.field("curve", pa.list_(pa.float32()))]
)


def table(*rows: tuple[str | None, list | None]) -> pa.Table:
    methods, curves = zip(*rows)
    return pa.table({"method": methods, "curve": curves}, pa.schema(list(SCHEMA)[1:]))


def means(rows: pa.Table | StoredRows) -> dict:
    return {method: mean_curve(rows["curve"], numbers) for method, numbers in groups_of(rows["method"]).items()}


def test_missing_points_missing_curves_and_curves_that_end_early() -> None:
    rows = table(
        ("a", [1, 2, None]), ("b", None), ("a", None), ("a", [3]), (None, [9, 9, 9]), ("a", [5, 6, None]), ("c", [])
    )
    assert means(rows) == {"a": [3, 4, None], "b": None, "c": []}
    assert means(table(("a", [None, 1]), ("a", [np.nan, np.inf]))) == {"a": [None, np.inf]}


def test_the_mean_is_the_same_however_the_rows_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numbers that float64 cannot add without loss."""
    monkeypatch.setattr("lightning_modules.results.summaries.attribution.ROWS_AT_ONCE", 40)
    rng = np.random.default_rng(0)
    curves = (rng.normal(size=(301, 2)) * 2.0 ** rng.integers(-60, 60, (301, 2))).astype(np.float32)
    expected = [float(sum(map(Fraction, column.tolist())) / len(curves)) for column in curves.T]
    assert curves.astype(float).sum(0).tolist() != [value * len(curves) for value in expected]
    rows = [{"path": str(k), "method": "a", "curve": curve.tolist()} for k, curve in enumerate(curves)]
    found = []
    for n, order in ((1, range(301)), (3, range(300, -1, -1)), (50, rng.permutation(301))):
        folder = tmp_path / str(n)
        for part in np.array_split(list(order), n):
            write_part(folder / part_name(0), [rows[k] for k in part], SCHEMA)
        found.append(means(StoredRows(folder))["a"])
    assert found[0] == found[1] == found[2] == pytest.approx(expected, rel=1e-9, abs=0)
