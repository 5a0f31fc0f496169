"""What the rows of any run come to."""

from __future__ import annotations

from pathlib import Path

from lightning_modules.results.rows.parts import part_name, read_rows, write_part
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
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None) + rows("d", -1, 0, None, None), SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    assert summarize_images(read_rows(tmp_path)) == {
        "n_images": 4,
        "n_failed": 1,
        "n_box_errors": 0,
        "n_unturned": 0,
        "file_notes": {},
        "n_labelled": 2,
        "top1": 0.5,
        "top5": 1.0,
    }
    write_part(tmp_path / "failures" / part_name(0), failed("c"), SCHEMA)
    summary = summarize_images(read_rows(tmp_path / "failures"))
    assert (summary["n_images"], summary["n_failed"], summary["top1"]) == (1, 1, None)
