"""The verdict of the sanity check: what is held against the threshold, and when nothing is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lightning_modules import AttributionModule, GradCAM
from lightning_modules.metrics import WeightRandomization
from lightning_modules.metrics.randomization import END, FIRST, SEEDS
from lightning_modules.results.summaries.sanity import sanity_notes, sanity_verdict


def of_method(
    first: tuple[float, float] | None, end: tuple[float, float] | None, seeds: list[float] | None = None
) -> Any:
    """A method's part of a summary, by the intervals of its scores."""
    scores = {
        name: {"mean": None if ends is None else sum(ends) / 2, "low": ends and ends[0], "high": ends and ends[1]}
        for name, ends in ((FIRST, first), (END, end))
    }
    curves = {SEEDS[FIRST]: None, SEEDS[END]: seeds}
    return {"scores": scores, "curves": curves | {"randomization_correlation_curve": [0.9] * 16}}


ALIKE, CHANGED, ACROSS = (0.51, 0.9), (0.1, 0.49), (0.4, 0.6)


@pytest.mark.parametrize(
    ("first", "end", "verdict"),
    [
        (CHANGED, CHANGED, "passes"),
        # Guided Backpropagation: when all is forgotten its maps have changed, but not at once.
        (ALIKE, CHANGED, "fails"),
        (CHANGED, ALIKE, "fails"),
        (ALIKE, ACROSS, "fails"),
        (ACROSS, CHANGED, "undecided"),
        (CHANGED, ACROSS, "undecided"),
        (CHANGED, None, "passes"),  # in the end no map shows anything
        (None, None, None),
    ],
)
def test_verdict_over_images(first: Any, end: Any, verdict: str | None) -> None:
    assert sanity_verdict(of_method(first, end)) == verdict


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [
        ([0.2, 0.21, 0.22], "passes"),
        ([0.8, 0.81, 0.82], "undecided"),  # the images say the opposite
        ([0.2, 0.4, 0.6], "undecided"),
        ([0.3, 0.4, 0.7], "undecided"),
    ],
)
def test_verdict_over_seeds(seeds: list[float], verdict: str) -> None:
    assert sanity_verdict(of_method(CHANGED, CHANGED, seeds)) == verdict


def test_a_single_image_decides_nothing() -> None:
    alone = of_method(ALIKE, CHANGED)
    alone["scores"][FIRST] |= {"low": None, "high": None}
    assert sanity_verdict(alone) == "undecided"
    assert "(? to ?) after the first of 16 layers" in next(sanity_notes({"GradCAM": alone}))


def test_notes_have_all_numbers_and_whose_threshold_it_is() -> None:
    module = AttributionModule("shapes", [GradCAM()], [WeightRandomization(["classifier.6", "features.0"], n_seeds=2)])
    numbers = np.random.default_rng(0).normal(0, 0.05, 40)
    rows = [
        {"path": f"{k:02}", "status": "ok", "label": 0, "target": 0, "method": "GradCAM", "degenerate": False}
        | {FIRST: 0.95 + shift, END: 0.14 + shift, "randomization_correlation": 0.75 + shift}
        | {"randomization_correlation_floor": 0.31 + shift, "randomization_correlation_curve": [0.95, 0.14]}
        | {SEEDS[FIRST]: [0.94, 0.96], SEEDS[END]: [0.13, 0.15]}
        for k, shift in enumerate(numbers)
    ]
    table = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    summary = module.summarize(table)
    assert (summary["failing_randomization"], summary["undecided_randomization"]) == (["GradCAM"], [])
    report = module.report(summary)
    of_grad_cam, of_all = [note for note in report.notes if "sanity" in note]
    assert of_grad_cam.startswith("GradCAM fails the sanity check: its maps' rank correlation with those of the")
    first, end, mean, floor = (number + np.mean(numbers) for number in (0.95, 0.14, 0.75, 0.31))
    assert f"{first:.2f} (" in of_grad_cam
    assert "0.94 to 0.96 over 2 draws) after the first of 2 layers" in of_grad_cam
    assert f"{end:.2f} (" in of_grad_cam
    assert f"and {mean:.2f} on average over all. Maps of different images have {floor:.2f}." in of_grad_cam
    assert "This threshold is ours" in of_all
    assert summary["methods"]["GradCAM"]["curves"][SEEDS[END]] == pytest.approx([0.13, 0.15])
    (axes,) = dict(module.run_figures(summary, Path()))[SEEDS[FIRST]].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    # Floors are told, and rank nobody.
    assert "randomization_correlation_floor" not in summary["better"]
