from __future__ import annotations

import pyarrow as pa
import pytest

from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.summaries.synthesis import (
    label_of_variant,
    report_synthesis,
    summarize_synthesis,
    table_of_images,
)
from lightning_modules.results.summaries.verdicts import note_of_verdict

COLUMNS = ("activation", "activation_shifted", "probability", "probability_shifted", "total_variation")
NUMBERS = dict.fromkeys((*COLUMNS, "clipped", "seconds", "cpu_seconds"), 1.0)
JUDGES = {"a": {"n_classes": 10, "had_part": False}, "b": {"n_classes": 5, "had_part": True}}


def row(number: int, rank: int | None, variant: str = "both", status: str = "ok") -> dict:
    of_judge = {"rank": rank, "probability": rank and 1 / rank, "prediction_name": rank and f"class {rank}"}
    judged = {f"judge.{judge}.{what}": value for judge in "ab" for what, value in of_judge.items()}
    named = {"path": f"{number}.png", "name": f"class {number}", "seed": 0, "variant": variant, "status": status}
    return {**named, "error": None, **NUMBERS, **judged}


def summary(rows: list[dict]) -> dict:
    return summarize_synthesis(pa.Table.from_pylist(rows), JUDGES)


ROWS = [row(0, 1), row(1, 5), row(2, 6), row(3, None), row(4, 1, status="failed"), row(5, 2, "neither")]


def test_shares_of_what_was_judged() -> None:
    """Neither a channel, which has no rank, nor what failed counts."""
    both, neither = (summary(ROWS)["variants"][name]["judges"] for name in ("both", "neither"))
    assert both["a"] == {
        "n": 3, "n_top1": 1, "top1": pytest.approx(1 / 3), "n_top5": 2, "top5": pytest.approx(2 / 3),
        "probability": pytest.approx((1 + 1 / 5 + 1 / 6) / 3),
        "intervals": {
            "top1": pytest.approx(interval_of_mean([1, 0, 0])), "top5": pytest.approx(interval_of_mean([1, 1, 0])),
            "probability": pytest.approx(interval_of_mean([1, 1 / 5, 1 / 6])),
        },
    }  # fmt: skip
    assert (neither["a"]["n_top1"], neither["a"]["n_top5"]) == (0, 1)
    assert (both["b"]["n_top1"], both["b"]["n_top5"], both["b"]["top5"]) == (1, None, None)  # it has no more classes
    assert summary(ROWS)["judges"] == JUDGES


def test_only_channels() -> None:
    of_judge = summary([row(3, None)])["variants"]["both"]["judges"]["a"]
    assert of_judge.pop("intervals") == {name: [None, None] for name in ("top1", "top5", "probability")}
    assert of_judge == {"n": 0, "n_top1": 0, "top1": None, "n_top5": 0, "top5": None, "probability": None}
    assert note_of_verdict("a", of_judge, had_part=False) == "a judged nothing: no image of a class was made."


def test_the_report() -> None:
    report = report_synthesis(summary(ROWS))
    assert report.notes == [
        "Named by a: 1 of 3 first, 2 in its top five.",
        "Named by b: 1 of 3 first. It made them itself, so this is no second opinion.",
    ]
    assert report.scalars["3_scores/judge.a.top5/neither"] == 1
    assert report.scalars["3_scores/judge.b.top5/both"] is None
    table = report.tables[1]
    assert [[cell.split(" ")[0] for cell in row[:5]] for row in table.rows[2:]] == [
        ["a", "both", "3", "33.3%", "66.7%"],
        ["b", "both", "3", "33.3%", "-"],
    ]


def test_the_table_tells_what_the_images_cost() -> None:
    rows = [{**row(k, 1), "clipped": k / 4, "steps": 10 * k, "cpu_seconds": 1.5 * k} for k in (1, 2)]
    table = report_synthesis(summary(rows)).tables[1]
    assert list(table.header[-3:]) == ["clipped", "steps", "CPU s an image"]
    assert table.rows[0][-3:] == ["37.5%", "15", "2.2"]


def test_the_label_of_a_variant() -> None:
    both, neither = (summary(ROWS)["variants"][name] for name in ("both", "neither"))
    assert label_of_variant("both", both).splitlines()[:3] == ["both", "a: 33.3% first", "66.7% in five, p 0.456"]
    assert label_of_variant("both", both).splitlines()[-2:] == ["clipped 100.0%", "CPU 1.0 s an image"]
    del neither["judges"]
    assert label_of_variant("neither", neither).splitlines()[1:3] == ["activation 1.0000", "shifted 1.0000"]


def test_variants_come_in_order() -> None:
    rows = [row(0, 1, name) for name in ("both", "TV only")]
    found = summarize_synthesis(pa.Table.from_pylist(rows), JUDGES)
    assert list(found["variants"]) == ["TV only", "both"]
    assert [cells[0] for cells in table_of_images(rows).rows] == ["class 0: TV only", "class 0: both"]


def test_the_table_of_images() -> None:
    table = table_of_images(ROWS[:4])
    assert list(table.header[-3:]) == ["a", "b", "seconds"]
    assert [row[-3] for row in table.rows] == ["#1, 100.0%", "#5: class 5", "#6: class 6", "-"]


def test_without_judges_all_is_as_it_was() -> None:
    rows = [{name: value for name, value in row(0, 1).items() if not name.startswith("judge")}]
    found = summarize_synthesis(pa.Table.from_pylist(rows))
    assert "judges" not in found
    assert "judges" not in found["variants"]["both"]
    assert (len(report_synthesis(found).tables), report_synthesis(found).notes) == (1, [])
    assert table_of_images(rows).header[-2:] == ["clipped", "seconds"]
