from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_modules.errors import InputError
from lightning_modules.results.rows import (
    IMAGE_FIELDS,
    done_paths,
    part_name,
    read_rows,
    refuse_other_columns,
    summarize_images,
    write_part,
)
from lightning_modules.whole_files import written_whole

SCHEMA = pa.schema([*IMAGE_FIELDS, pa.field("target", pa.int64()), pa.field("method", pa.string())]).append(
    pa.field("score", pa.float64())
)


def rows(path: str, label: int, prediction: int, *scores: float | None) -> list[dict]:
    image = {"path": path, "status": "ok", "label": label, "prediction": prediction, "probability": 0.5}
    if label >= 0:
        image |= {"top1": label == prediction, "top5": True}
    return [{**image, "method": f"Method{k}", "score": score} for k, score in enumerate(scores)]


def failed(path: str) -> list[dict]:
    return [{"path": path, "status": "failed", "error": "the file is empty"}]


def test_round_trip_in_the_order_of_paths(tmp_path: Path) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None), SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    table = read_rows(tmp_path)
    assert table.schema.equals(SCHEMA)
    assert table["path"].to_pylist() == ["a", "a", "b", "b", "c"]
    assert table["score"].to_pylist() == [0.25, 0.5, 1.0, None, None]
    assert done_paths(tmp_path) == {"a", "b", "c"}
    assert done_paths(tmp_path / "nowhere") == set()


def test_a_part_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    """By those that README names too, while it grows and after a kill."""
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None), SCHEMA)
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
        (SCHEMA.append(pa.field("more", pa.float64())), "they lack more. Give"),
        (SCHEMA.remove(SCHEMA.get_field_index("score")), "they have besides score. Give"),
        (pa.schema([*list(SCHEMA)[:-1], pa.field("score", pa.int64())]), "they have in another form score. Give"),
    ],
    ids=["fewer", "more", "another type"],
)
def test_rows_are_added_to_their_like_only(tmp_path: Path, schema: pa.Schema, message: str) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0), schema)
    refuse_other_columns(tmp_path, schema)
    write_part(tmp_path / part_name(1), rows("a", 0, 0, 1.0), SCHEMA)
    with pytest.raises(InputError, match=message):
        refuse_other_columns(tmp_path, schema)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    part = tmp_path / part_name(0)
    part.write_bytes(b"PAR1")
    for read in (read_rows, lambda folder: refuse_other_columns(folder, SCHEMA)):
        with pytest.raises(InputError, match=f"{part.name} is damaged"):
            read(tmp_path)


def test_summary_of_what_may_be_otherwise_than_meant(tmp_path: Path) -> None:
    """Each image counts once, and those that failed do not."""
    found = [dict(row) for path in "abcd" for row in rows(path, 0, 0, 1.0, 1.0)] + failed("e")
    for row in found:
        row |= {"a": {"exif_orientation": 6}, "b": {"exif_orientation": 1, "doubt": "dim"}}.get(row["path"], {})
        row |= {"c": {"exif_orientation": 2, "doubt": "dim"}, "e": {"exif_orientation": 8}}.get(row["path"], {})
    write_part(tmp_path / part_name(0), found[3:], SCHEMA)
    write_part(tmp_path / part_name(1), found[:3], SCHEMA)
    summary = summarize_images(read_rows(tmp_path))
    assert (summary["n_unturned"], summary["doubts"]) == (2, {"dim": 2})


def test_summary_of_images(tmp_path: Path) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None) + rows("d", -1, 0, None, None), SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    assert summarize_images(read_rows(tmp_path)) == {
        "n_images": 4,
        "n_failed": 1,
        "n_box_errors": 0,
        "n_unturned": 0,
        "doubts": {},
        "n_labelled": 2,
        "top1": 0.5,
        "top5": 1.0,
    }
    write_part(tmp_path / "failures" / part_name(0), failed("c"), SCHEMA)
    summary = summarize_images(read_rows(tmp_path / "failures"))
    assert (summary["n_images"], summary["n_failed"], summary["top1"]) == (1, 1, None)
