"""Scores of the maps of clean and of attacked images, from the rows of a robustness run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lightning_modules.results.report import SCORES, Report, tag
from lightning_modules.results.rows import units_of
from lightning_modules.results.scores import mean_and_interval, mean_with_interval
from lightning_modules.results.storage import Rows, numbers_of
from lightning_modules.results.tables import Table


def score_column(method: str, score: str) -> str:
    """The column of a score of a method's maps.

    Example:
        >>> score_column("GradCAM", "average_drop")
        'GradCAM.average_drop'
    """
    return f"{method}.{score}"


def with_scores(summary: dict[str, Any], rows: Rows, methods: Sequence[str], scores: Sequence[str]) -> dict[str, Any]:
    """The summary of a robustness run with the ``scores`` of each method's maps: of the clean images, and each budget.

    Each has its mean, its 95 % interval and ``n``, the number of maps that could be scored.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        rows: Those of the run.
        methods: Of which there are scores.
        scores: Their names.
    """
    if not methods or not scores:
        return summary
    eps, units = numbers_of(rows["eps"]), units_of(rows)
    is_good = pc.equal(rows["status"], "ok").fill_null(False).to_numpy()
    budgets = [{"eps": 0.0, "written": "0"}, *summary["sweep"]]
    places = [np.flatnonzero(is_good & (eps == at["eps"])) for at in budgets]
    found: list[dict[str, Any]] = [{method: {} for method in methods} for _ in budgets]
    for method in methods:
        for score in scores:
            values = numbers_of(rows[score_column(method, score)])
            for of_budget, of in zip(found, places):
                n = int((~np.isnan(values[of])).sum())
                of_budget[method][score] = {**mean_and_interval(values[of], units[of]), "n": n}
    sweep = [{**at, "scores": of_budget} for at, of_budget in zip(summary["sweep"], found[1:])]
    return {**summary, "clean_scores": found[0], "sweep": sweep}


def with_table_of_scores(report: Report, summary: Mapping[str, Any]) -> Report:
    """The report with a table of these scores, a column for each budget, and with their means; as it is without any."""
    if "clean_scores" not in summary:
        return report
    budgets = {"0": summary["clean_scores"]} | {at["written"]: at["scores"] for at in summary["sweep"]}
    rows, scalars = [], dict(report.scalars)
    for method, of_method in summary["clean_scores"].items():
        for score in of_method:
            rows.append([score, method, *(mean_with_interval(of[method][score]) for of in budgets.values())])
            scalars |= {
                tag(SCORES, score, method, f"eps {eps}"): of[method][score]["mean"] for eps, of in budgets.items()
            }
    header = ["mean and 95 % interval", "method", *(f"eps {eps}" for eps in budgets)]
    table = Table(header, rows, "Scores of the maps of the clean images (eps 0) and of the attacked ones", n_left=2)
    return replace(report, scalars=scalars, tables=[*report.tables, table])
