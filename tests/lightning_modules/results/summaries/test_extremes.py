"""The worst and the best images by each score."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from lightning_modules.results.summaries.extremes import summarize_extremes, table_of_extremes

RUN = Path("my runs/val")


def rows(**columns: list) -> pa.Table:
    n = len(next(iter(columns.values())))
    return pa.table({"path": [f"x/{k}.png" for k in range(n)], "method": ["A"] * n, **columns})


def test_five_of_each_with_the_command_that_draws_them() -> None:
    table = rows(drop=[0.5, None, 0.1, 0.5, 0.2, 0.3, 0.4], hit=[1.0, 1, 0, 1, None, 1, 1])
    found = summarize_extremes(table, {"drop": "lower", "hit": "higher", "curve": "higher"}, RUN)
    assert list(found) == ["drop", "hit"]
    worst, best = (found["drop"][word] for word in ("worst", "best"))
    assert [(row["path"][2], row["value"]) for row in worst["rows"]] == [
        ("0", 0.5),
        ("3", 0.5),
        ("6", 0.4),
        ("5", 0.3),
        ("4", 0.2),
    ]
    assert [row["path"][2] for row in best["rows"]] == ["2", "4", "5", "6", "0"]
    assert worst["draw"] == "python scripts/look.py 'my runs/val' --show worst drop"
    assert [row["path"][2] for row in found["hit"]["worst"]["rows"]] == ["2", "0", "1", "3", "5"]
    (shown,) = table_of_extremes(found)
    assert [row[:2] for row in shown.rows] == [["drop", "worst"], ["", "best"], ["hit", "worst"], ["", "best"]]
    assert shown.rows[0][2].startswith("0.png, A: 0.5; 3.png, A: 0.5; 6.png")
    assert "look.py 'my runs/val' --show worst drop" in shown.title


def test_few_rows_and_equal_ones_are_left_out() -> None:
    few = rows(drop=[0.1, 0.2, 0.3, 0.4, 0.5])
    assert summarize_extremes(few, {"drop": "lower"}, RUN) == {}
    equal = rows(drop=[0.1] * 9)
    assert summarize_extremes(equal, {"drop": "lower"}, RUN) == {}
    assert table_of_extremes({}) == []


def test_budgets_are_written_as_people_write_them() -> None:
    table = pa.table(
        {"path": [f"{k}.png" for k in range(7)], "eps": [4 / 255] * 7, "likeness": [k / 8 for k in range(7)]}
    )
    (shown,) = table_of_extremes(summarize_extremes(table, {"likeness": "higher"}, RUN))
    assert shown.rows[0][2].startswith("0.png, eps 4/255: 0; 1.png, eps 4/255: 0.125")
