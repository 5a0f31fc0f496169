"""What the rows of any run come to."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_modules.results.report import Report
from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.storage import part_name, read_rows, write_part
from lightning_modules.results.summaries.images import summarize_images
from tests.lightning_modules.results.made_rows import SCHEMA, failed, rows


def test_summary_of_what_may_be_otherwise_than_meant(tmp_path: Path) -> None:
    """Each image counts once, and those that failed do not."""
    found = [dict(row) for path in "abcd" for row in rows(path, 0, 0, 1.0, 1.0)] + failed("e")
    for row in found:
        row |= {"a": {"exif_orientation": 6}, "b": {"exif_orientation": 1, "note": "dim"}}.get(row["path"], {})
        row |= {"c": {"exif_orientation": 2, "note": "dim"}, "e": {"exif_orientation": 8}}.get(row["path"], {})
    write_part(tmp_path / part_name(0), found[3:], SCHEMA)
    write_part(tmp_path / part_name(1), found[:3], SCHEMA)
    summary = summarize_images(read_rows(tmp_path))
    assert (summary["n_unturned"], summary["file_notes"]) == (2, {"dim": 2})


def test_summary_of_images(tmp_path: Path) -> None:
    found = rows("b", 0, 0, 1.0, None) + rows("d", -1, 0, None, None) + rows("e", 0, 0, 1.0)
    write_part(tmp_path / part_name(0), [{**row, "label_name": "cat"} for row in found], SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    summary = summarize_images(read_rows(tmp_path))
    assert summary == {
        "n_images": 5,
        "n_failed": 1,
        "n_box_errors": 0,
        "n_unturned": 0,
        "file_notes": {},
        "n_labelled": 3,
        "top1": pytest.approx(2 / 3),
        "top5": 1.0,
        "intervals": {
            "top1": pytest.approx(interval_of_mean([1, 1, 0])),
            "top5": pytest.approx(interval_of_mean([1, 1, 1])),
        },
        "balanced_acc": 0.5,
        "classes": [
            {"label": 0, "name": "cat", "n": 2, "top1": 1.0},
            {"label": 1, "name": None, "n": 1, "top1": 0.0},
        ],
    }
    write_part(tmp_path / "failures" / part_name(0), failed("c"), SCHEMA)
    summary = summarize_images(read_rows(tmp_path / "failures"))
    assert (summary["n_images"], summary["n_failed"], summary["top1"]) == (1, 1, None)
    assert (summary["balanced_acc"], summary["classes"]) == (None, [])


def test_the_worst_classes_are_listed() -> None:
    """Of few classes those with errors; of a thousand the worst ones, in a table that all evaluations show."""
    accuracies = [1.0, 0.25, 0.5, 1.0, 0.0, 0.75, 0.1, 0.9]
    classes = [{"label": k, "name": f"class {k}", "n": 20, "top1": top1} for k, top1 in enumerate(accuracies)]
    counts = {"n_images": 160, "n_failed": 0, "top1": 0.5, "top5": None}
    (worst,) = Report.from_summary({**counts, "classes": classes}, {}, []).tables
    assert worst.title == "The worst of 8 classes"
    assert [row[0] for row in worst.rows] == [f"class {k}" for k in (4, 6, 1, 2, 5)]
    assert worst.rows[1] == ["class 6", "10.0%", "20"]
    for of_few in (classes[:1], classes[1:2], []):
        assert Report.from_summary({**counts, "classes": of_few}, {}, []).tables == []
