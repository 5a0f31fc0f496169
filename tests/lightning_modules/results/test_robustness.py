"""What the report of an attack says."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_modules.results.robustness import report_robustness

COUNTS = ("n_images", "n_failed", "n_labelled", "n_saturated", "n_vanished")
MEANS = ("top1", "top5", "clean_acc", "clean_acc_top5", "median_smallest_eps")
SUMMARY: dict[str, Any] = {"sweep": [], **dict.fromkeys(COUNTS, 0), **dict.fromkeys(MEANS)}


@pytest.mark.parametrize(
    ("n_attacked", "note"),
    [(0, "There was no image to fool"), (2, "Median smallest eps that fools an image: above the sweep")],
)
def test_where_nothing_could_be_fooled_nothing_is_said_to_withstand(n_attacked: int, note: str) -> None:
    report = report_robustness({**SUMMARY, "n_attacked": n_attacked}, "")
    assert report.notes[0].startswith(note)
