from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lightning_modules.results.rows.parts import part_name, write_part
from lightning_modules.results.rows.stored import StoredRows, groups_of, numbers_of
from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.summaries.images import summarize_images

SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("path", "status", "error", "note", "method", "label_name")),
        *(pa.field(name, pa.int64()) for name in ("exif_orientation", "label")),
        *(pa.field(name, pa.bool_()) for name in ("top1", "top5")),
        *(pa.field(name, pa.float64()) for name in ("eps", "score")),
        pa.field("curve", pa.list_(pa.float32())),
    ]
)


def some_rows(n: int) -> list[dict]:
    """In no order; of an image and method several, so that they differ by eps, or not at all."""
    rng = np.random.default_rng(n)
    rows = []
    for k in range(n):
        image = int(rng.integers(n // 3))
        row = {"path": f"é{image}", "status": "ok" if image % 5 else "failed", "exif_orientation": 1 + image % 3}
        row |= {
            "label": image % 4 - 1,
            "label_name": (None, "x", "y", "z")[image % 4],
            "error": "a box" if image % 7 == 0 else None,
        }
        row |= {"note": (None, "dim", "old")[image % 3], "method": (None, "B", "a")[int(rng.integers(3))]}
        row |= {"top1": None if image % 4 == 0 else image % 3 == 0, "eps": (None, 0.0, 0.5)[int(rng.integers(3))]}
        rows.append(row | {"score": float(k), "curve": None if k % 3 == 0 else [k / 7, None]})
    return rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = some_rows(60)
    for a, b in ((0, 7), (7, 8), (8, 60)):
        write_part(tmp_path / part_name(0), rows[a:b], SCHEMA)
    return tmp_path


def test_they_come_in_the_order_in_which_pyarrow_sorts_them(folder: Path) -> None:
    columns = {name: [row.get(name) for row in some_rows(60)] for name in SCHEMA.names}
    keys = [(name, "ascending") for name in ("path", "method", "eps")]
    expected = pa.table(columns, SCHEMA).sort_by(keys)
    stored = StoredRows(folder)
    assert len(stored) == 60
    assert stored.schema.equals(SCHEMA)
    assert stored.to_table().equals(expected)
    assert stored.select(["score", "path"]).to_table().equals(expected.select(["score", "path"]))
    for name in SCHEMA.names:
        assert stored[name].to_pylist() == expected[name].to_pylist(), name
    assert stored.to_pandas().equals(expected.to_pandas())
    assert summarize_images(stored) == summarize_images(expected)


def test_batches_are_the_parts(folder: Path) -> None:
    batches = list(StoredRows(folder, ["method", "score"]).to_batches())
    assert [len(batch) for batch in batches] == [7, 1, 52]
    assert [score for batch in batches for score in batch.column(1).to_pylist()] == list(range(60))


def test_images_are_counted_as_pandas_counts_them(folder: Path) -> None:
    stored = StoredRows(folder)
    images = stored.to_pandas().drop_duplicates("path")
    good = images[images["status"] == "ok"]
    assert len(good) < len(images) < len(stored)
    of_classes = good.dropna(subset="top1").astype({"top1": float}).groupby(["label", "label_name"])["top1"]
    means = of_classes.agg(["size", "mean"]).reset_index().itertuples(index=False)
    assert summarize_images(stored) == {
        "n_images": len(images),
        "n_failed": len(images) - len(good),
        "n_box_errors": good["error"].notna().sum(),
        "n_unturned": (good["exif_orientation"] > 1).sum(),
        "file_notes": good["note"].value_counts().sort_index().to_dict(),
        "n_labelled": (good["label"] >= 0).sum(),
        "top1": good["top1"].dropna().mean(),
        "top5": None,
        "intervals": {"top1": [*interval_of_mean(good["top1"].dropna())], "top5": [None, None]},
        "balanced_acc": pytest.approx(of_classes.mean().mean()),
        "classes": [dict(zip(("label", "name", "n", "top1"), each)) for each in means],
    }


def test_columns_as_numbers_and_as_groups() -> None:
    np.testing.assert_array_equal(numbers_of(pa.chunked_array([[True, None], [False]])), [1, np.nan, 0])
    np.testing.assert_array_equal(numbers_of(pa.chunked_array([[3, None], [-1]])), [3, np.nan, -1])
    text = pa.chunked_array([["b", None], ["a", "b"]])
    for column in (text, text.dictionary_encode()):
        groups = groups_of(column)
        assert {name: places.tolist() for name, places in groups.items()} == {"b": [0, 3], "a": [2]}
        assert list(groups) == ["b", "a"]
