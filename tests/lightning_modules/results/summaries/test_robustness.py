"""What the report of an attack says."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_modules.attacks.budgets import format_eps, parse_sweep
from lightning_modules.results.summaries.robustness_report import report_robustness

COUNTS = ("n_images", "n_failed", "n_labelled", "n_saturated", "n_vanished")
MEANS = ("top1", "top5", "clean_acc", "clean_acc_top5", "median_smallest_eps")
SUMMARY: dict[str, Any] = {"sweep": [], **dict.fromkeys(COUNTS, 0), **dict.fromkeys(MEANS)}


def at(eps: float) -> dict[str, Any]:
    names = ("robust_acc", "robust_acc_top5", "attack_success_rate")
    budget = {"eps": float(eps), "written": format_eps(eps), "linf": float(eps), "l2": float(eps)}
    return {**budget, **dict.fromkeys(names, 0.5), "methods": {}}


@pytest.mark.parametrize(
    "typed", [["1/255", "8/255"], ["0.25/255", "8/255"], ["1/255", "1.0001/255"], ["1e-6", "1"], ["1e-9", "2e-9"]]
)
def test_budgets_are_said_as_they_were_typed_and_told_apart(typed: list[str]) -> None:
    sweep = parse_sweep(typed, 2)
    report = report_robustness({**SUMMARY, "n_attacked": 2, "sweep": list(map(at, sweep)), "clean_acc": 1.0})
    assert [row[0] for row in report.tables[0].rows] == ["0", *typed]
    tags = [name for name in report.scalars if name.startswith("3_scores/robust_acc/")]
    assert tags == [f"3_scores/robust_acc/eps_{eps.replace('/', '_')}" for eps in typed]
    assert all(float(row[4]) == pytest.approx(eps, rel=0.05) for row, eps in zip(report.tables[0].rows[1:], sweep))


@pytest.mark.parametrize(("median", "said"), [(0.25 / 255, "0.25/255"), (4.125 / 255, "4.125/255"), (1e-3, "1e-3")])
def test_the_median_is_said_as_its_budget_was_typed(median: float, said: str) -> None:
    sweep = parse_sweep(["0.25/255", "1e-3", "8/255"], "inf")
    summary = {**SUMMARY, "n_attacked": 2, "sweep": list(map(at, sweep)), "median_smallest_eps": median}
    assert report_robustness(summary).notes[0].endswith(f" {said}")


@pytest.mark.parametrize(
    ("n_attacked", "note"),
    [(0, "There was no image to fool"), (2, "Median smallest eps that fools an image: above the sweep")],
)
def test_where_nothing_could_be_fooled_nothing_is_said_to_withstand(n_attacked: int, note: str) -> None:
    report = report_robustness({**SUMMARY, "n_attacked": n_attacked}, "")
    assert report.notes[0].startswith(note)
