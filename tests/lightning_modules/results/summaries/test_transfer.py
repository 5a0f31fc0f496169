"""What else attacked images fool, reduced to a summary."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.summaries.robustness import summarize_robustness
from lightning_modules.results.summaries.robustness_report import report_robustness
from lightning_modules.results.summaries.transfer import with_transfer


def rows(dictionaries: bool = False) -> pa.Table:
    """Four images under two budgets: "wrong" is misclassified from the start, and "lost" failed."""
    of: dict[str, list[Any]] = {
        # Of the clean image, then of each budget: success, success_rounded, of the victim.
        "a": [(False, None, False), (True, False, False), (True, True, True)],
        "b": [(False, None, False), (True, True, None), (True, None, True)],
        "c": [(False, None, None), (False, False, None), (False, False, None)],
        "wrong": [(False, None, False), (True, True, True), (True, True, False)],
    }
    found = [{"path": "lost", "status": "failed"}]
    for path, budgets in of.items():
        for eps, (success, rounded, victim) in zip((0.0, 0.1, 0.2), budgets):
            row: dict[str, Any] = {"path": path, "status": "ok", "eps": eps, "success": success, "linf": eps, "l2": eps}
            row |= {
                "prediction": int(success),
                "top1": path != "wrong" and not success,
                "top5": True,
                "label": 0,
                "exif_orientation": 1,
                "saturated": False,
            }
            row |= {"vanished": False, "success_rounded": rounded, "victim.other.success": victim}
            row["victim.other.prediction_name"] = None if victim is None else "cat"
            found.append(row)
    text, number, flag = pa.string(), pa.float64(), pa.bool_()
    types = dict.fromkeys(("path", "status", "error", "note", "label_name"), text)
    types |= dict.fromkeys(("eps", "linf", "l2", "smallest_eps"), number)
    types |= dict.fromkeys(("success", "top1", "top5", "saturated", "vanished", "success_rounded"), flag)
    types |= {
        "label": pa.int64(),
        "label_name": text,
        "prediction": pa.int64(),
        "exif_orientation": pa.int64(),
        "victim.other.success": flag,
        "victim.other.prediction_name": text,
    }
    table = pa.Table.from_pylist(found, schema=pa.schema(types))
    for name in ("path", "status") if dictionaries else ():
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    return table


@pytest.mark.parametrize("dictionaries", [False, True], ids=["text", "text as dictionaries"])
def test_by_hand(dictionaries: bool) -> None:
    summary = with_transfer(summarize_robustness(rows(), [0.1, 0.2]), rows(dictionaries))
    # "wrong" counts for none of the network's own rates; what is null, for none at all.
    assert [at["attack_success_rate"] for at in summary["sweep"]] == pytest.approx([2 / 3, 2 / 3])
    assert [at["success_rate_rounded"] for at in summary["sweep"]] == pytest.approx([1 / 3, 2 / 3])
    victims = [at["victims"]["other"] for at in summary["sweep"]]
    assert [(of["success_rate"], of["n"]) for of in victims] == [(0.5, 2), (1, 3)]
    assert (victims[1]["low"], victims[1]["high"]) == interval_of_mean([1, 1, 1])
    report = report_robustness(summary)
    (table,) = report.tables
    place = list(table.header).index("success in 8 bits")
    assert [row[place].split(" ")[0] for row in table.rows] == ["", "33.3%", "66.7%"]
    assert [row[place + 1].split(" ")[0] for row in table.rows] == ["", "50.0%", "100.0%"]
    assert "Of the clean images other was right about 2; its success is over those." in report.notes
    assert any("success_rate/on_other" in name for name in report.scalars)


def test_rows_that_tell_nothing_of_it_change_nothing() -> None:
    plain = rows().drop_columns(["success_rounded", "victim.other.success", "victim.other.prediction_name"])
    summary = summarize_robustness(plain)
    assert with_transfer(summary, plain) == summary
