"""Whoever meets the tables of a page for the first time finds each of their words explained."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import lightning_modules
from lightning_modules import Attack, AttributionMethod
from lightning_modules.metrics import (
    ROAD,
    AverageDrop,
    ClassDiscrimination,
    EnergyInBox,
    Infidelity,
    InsertionDeletion,
    LocalizationError,
    PointingGame,
    SensitivityMax,
    Sparseness,
    WeightRandomization,
)
from lightning_modules.pages.words import explained_words
from lightning_modules.results.report import Report
from lightning_modules.results.summaries.attribution import report_attribution
from lightning_modules.results.summaries.robustness_report import report_robustness
from lightning_modules.results.summaries.synthesis import NUMBERS, report_synthesis, table_of_images
from lightning_modules.results.summaries.verdicts import verdict_columns
from lightning_modules.results.tables import Table

COUNTS: dict[str, Any] = dict.fromkeys(("n_images", "n_failed", "n_box_errors", "n_labelled"), 2)
METRICS = (
    *(AverageDrop, ClassDiscrimination, EnergyInBox, InsertionDeletion, LocalizationError, PointingGame),
    *(WeightRandomization, Sparseness, SensitivityMax, Infidelity, ROAD),
)


def attribution() -> list[Table]:
    score = {"mean": 0.5, "low": 0.4, "high": 0.6, "class_mean": 0.5, "n": 2}
    names = [name for metric in METRICS for name in metric.columns]
    method = {"n_degenerate": 0, "scores": dict.fromkeys(names, score), "curves": {}}
    methods = dict.fromkeys(("GradCAM", "SmoothGrad(n_samples=2)"), method)
    places = {name: {"mean": 0.5, "best_place": 1, "worst_place": 2} for name in methods}
    ranking = {name: {"better": "higher", "n": 2, "methods": places} for name in names}
    summary = {**COUNTS, "top1": 1.0, "top5": 1.0, "methods": methods, "ranking": ranking}
    report = report_attribution(summary | {"failing_randomization": [], "undecided_randomization": []})
    assert report.legend
    return list(report.tables)


def robustness() -> list[Table]:
    names = ("robust_acc", "robust_acc_top5", "attack_success_rate", "linf", "l2")
    moved = {"GradCAM": {"rank_correlation": 0.5, "top_overlap": 0.5, "n": 2}}
    budget = {"eps": 0.1, "written": "0.1", **dict.fromkeys(names, 0.5), "methods": moved}
    clean = dict.fromkeys(("top1", "top5", "clean_acc", "clean_acc_top5"), 1.0)
    counts = dict.fromkeys(("n_attacked", "n_saturated", "n_vanished"), 0)
    report = report_robustness({**COUNTS, **clean, **counts, "median_smallest_eps": None, "sweep": [budget]})
    assert report.legend
    return list(report.tables)


def synthesis_report() -> Report:
    number = {"mean": 0.5, "min": 0.4, "max": 0.6}
    judged = {"n": 2, "n_top1": 1, "top1": 0.5, "n_top5": 2, "top5": 1.0, "probability": 0.4}
    columns = (*NUMBERS, "seconds", "cpu_seconds", "steps")
    variant = {"n": 2, **dict.fromkeys(columns, number), "judges": {"resnet18": judged}}
    judges = {"resnet18": {"n_classes": 8, "had_part": False}}
    return report_synthesis({"n_images": 2, "n_failed": 0, "judges": judges, "variants": {"both": variant}})


def synthesis() -> list[Table]:
    verdict = dict(zip(verdict_columns("resnet18").values(), (0.1, 3, "toaster")))
    row = dict.fromkeys((*NUMBERS, "seconds"), 0.5) | {"status": "ok", "name": "tench", "seed": 0, "variant": "both"}
    return [*synthesis_report().tables, table_of_images([row | verdict])]


NAMES = {"image", "resnet18", "score", "mean and 95 % interval of each score"}
"""What stands in headers and is no word: what an image or a score is, and what judges are called."""


@pytest.mark.parametrize("tables_of", [attribution, robustness, synthesis], ids=lambda tables_of: tables_of.__name__)
def test_every_column_is_explained(tables_of: Any) -> None:
    tables = tables_of()
    for table in tables:
        scores = [row[0] for row in table.rows] if tables_of is attribution else []
        for cell in {*table.header, *scores} - NAMES:
            alone = explained_words([Table([cell], [])])
            assert alone, cell
            assert alone.items() <= explained_words(tables).items()


@pytest.mark.parametrize("name", lightning_modules.__all__)
def test_each_method_and_attack_says_its_meaning(name: str) -> None:
    value = getattr(lightning_modules, name)
    is_one = isinstance(value, type) and issubclass(value, AttributionMethod | Attack) and not inspect.isabstract(value)
    assert not is_one or value.meaning


def test_a_figure_of_an_image_that_grew_is_explained() -> None:
    legend = synthesis_report().legend
    for word in ("noise", "steps", "activation", "total variation"):
        assert word in legend


def test_who_has_no_judges_reads_nothing_of_them() -> None:
    number = {"mean": 0.5, "min": 0.4, "max": 0.6}
    variants = {"both": {"n": 2, **dict.fromkeys((*NUMBERS, "seconds"), number)}}
    report = report_synthesis({"n_images": 2, "n_failed": 0, "variants": variants})
    assert not any("judge" in meaning for meaning in explained_words(report.tables).values())
