from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from lightning_modules.results.rows import IMAGE_FIELDS, done_paths, part_name, read_rows, summarize_images, write_part

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
    (tmp_path / "part-1-0000.tmp").write_text("a part that was cut off")
    table = read_rows(tmp_path)
    assert table.schema.equals(SCHEMA)
    assert table["path"].to_pylist() == ["a", "a", "b", "b", "c"]
    assert table["score"].to_pylist() == [0.25, 0.5, 1.0, None, None]
    assert done_paths(tmp_path) == {"a", "b", "c"}
    assert done_paths(tmp_path / "nowhere") == set()
    # One line in pandas.
    assert len(pd.read_parquet(next(tmp_path.glob("*.parquet")))) > 0


def test_summary_of_what_may_be_otherwise_than_meant(tmp_path: Path) -> None:
    """Each image counts once, and those that failed do not."""
    found = [dict(row) for path in "abcd" for row in rows(path, 0, 0, 1.0, 1.0)] + failed("e")
    for row in found:
        row |= {"a": {"exif_orientation": 6}, "b": {"exif_orientation": 1, "doubt": "dim"}}.get(row["path"], {})
        row |= {"c": {"exif_orientation": 2, "doubt": "dim"}, "e": {"exif_orientation": 8}}.get(row["path"], {})
    write_part(tmp_path / part_name(0), found[3:], SCHEMA)
    write_part(tmp_path / part_name(1), found[:3], SCHEMA)
    summary = summarize_images(read_rows(tmp_path).to_pandas())
    assert (summary["n_unturned"], summary["doubts"]) == (2, {"dim": 2})


def test_summary_of_images(tmp_path: Path) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None) + rows("d", -1, 0, None, None), SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    assert summarize_images(read_rows(tmp_path).to_pandas()) == {
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
    summary = summarize_images(read_rows(tmp_path / "failures").to_pandas())
    assert (summary["n_images"], summary["n_failed"], summary["top1"]) == (1, 1, None)
