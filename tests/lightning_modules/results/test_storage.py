from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.writing import written_whole
from lightning_modules.errors import InputError
from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.storage import (
    StoredRows,
    done_paths,
    groups_of,
    numbers_of,
    part_name,
    read_rows,
    refuse_other_columns,
    write_part,
)
from lightning_modules.results.summaries.images import summarize_images
from tests.lightning_modules.results import made_rows
from tests.lightning_modules.results.made_rows import failed
from tests.lightning_modules.results.made_rows import rows as image_rows

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
    assert StoredRows(folder, ["score", "path"]).to_table().equals(expected.select(["score", "path"]))
    for name in SCHEMA.names:
        assert stored[name].to_pylist() == expected[name].to_pylist(), name
    assert stored.to_pandas().equals(expected.to_pandas())
    assert summarize_images(stored) == summarize_images(expected)


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


def test_round_trip_in_the_order_of_paths(tmp_path: Path) -> None:
    write_part(tmp_path / part_name(0), image_rows("b", 0, 0, 1.0, None), made_rows.SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + image_rows("a", 1, 0, 0.25, 0.5), made_rows.SCHEMA)
    table = read_rows(tmp_path)
    assert table.schema.equals(made_rows.SCHEMA)
    assert table["path"].to_pylist() == ["a", "a", "b", "b", "c"]
    assert table["score"].to_pylist() == [0.25, 0.5, 1.0, None, None]
    assert done_paths(tmp_path) == {"a", "b", "c"}
    assert done_paths(tmp_path / "nowhere") == set()


def test_a_part_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    """By those that README names too, while it grows and after a kill."""
    write_part(tmp_path / part_name(0), image_rows("b", 0, 0, 1.0, None), made_rows.SCHEMA)
    with written_whole(tmp_path / part_name(1)) as aside:
        aside.write_bytes(next(tmp_path.glob("*.parquet")).read_bytes()[:-20])
        seen = [
            pd.read_parquet(tmp_path),
            pq.read_table(tmp_path).to_pandas(),
            duckdb.sql(f"SELECT * FROM '{tmp_path}/*.parquet'").df(),
            read_rows(tmp_path).to_pandas(),
        ]
    assert [frame["path"].tolist() for frame in seen] == [["b", "b"]] * 4


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (made_rows.SCHEMA.append(pa.field("more", pa.float64())), "they lack more. Give"),
        (made_rows.SCHEMA.remove(made_rows.SCHEMA.get_field_index("score")), "they have besides score. Give"),
        (
            pa.schema([*list(made_rows.SCHEMA)[:-1], pa.field("score", pa.int64())]),
            "they have in another form score. Give",
        ),
    ],
    ids=["fewer", "more", "another type"],
)
def test_rows_are_added_to_their_like_only(tmp_path: Path, schema: pa.Schema, message: str) -> None:
    write_part(tmp_path / part_name(0), image_rows("b", 0, 0, 1.0), schema)
    refuse_other_columns(tmp_path, schema)
    write_part(tmp_path / part_name(1), image_rows("a", 0, 0, 1.0), made_rows.SCHEMA)
    with pytest.raises(InputError, match=message):
        refuse_other_columns(tmp_path, schema)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    part = tmp_path / part_name(0)
    part.write_bytes(b"PAR1")
    for read in (read_rows, lambda folder: refuse_other_columns(folder, made_rows.SCHEMA)):
        with pytest.raises(InputError, match=f"is damaged: .*{part.name}"):
            read(tmp_path)
