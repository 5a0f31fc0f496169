from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lightning_modules import AttributionModule, GradCAM, Saliency
from lightning_modules.metrics import EnergyInBox, WeightRandomization
from lightning_modules.metrics.randomization import END, FIRST
from lightning_modules.results.rows import units_of
from lightning_modules.results.statistics import interval_of_mean
from lightning_modules.results.storage import StoredRows, part_name, write_part
from lightning_modules.results.summaries.attribution import MOST_COLUMNS, report_attribution, summarize_attribution


@pytest.fixture(scope="module")
def module() -> AttributionModule:
    return AttributionModule(
        "shapes", [GradCAM(), Saliency()], [EnergyInBox(), WeightRandomization(["classifier.6", "features.28"])]
    )


def table(module: AttributionModule) -> pa.Table:
    """Two images of class 0 and one of class 1, explained by two methods, and a file that failed."""
    rows = []
    for path, target, energy in (("a", 0, 0.2), ("b", 0, 0.4), ("c", 1, 0.9)):
        for method, correlation in (("GradCAM", 0.1), ("Saliency", 0.8)):
            rows.append(
                {"path": path, "status": "ok", "label": target, "target": target, "method": method, "top1": True}
                | {"degenerate": path == "a" and method == "Saliency", "energy_in_box": energy}
                | {"randomization_correlation": None if path == "a" else correlation, "randomization_ssim": None}
                | dict.fromkeys((FIRST, END), correlation)
                | {"randomization_correlation_curve": [None if path == "a" else 0.9, correlation]}
            )
    rows.append({"path": "d", "status": "failed", "error": "the file is empty"})
    return pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)


def test_scores_of_each_method(module: AttributionModule) -> None:
    summary = summarize_attribution(table(module))
    assert (summary["n_images"], summary["n_failed"], summary["top1"]) == (4, 1, 1.0)
    assert list(summary["methods"]) == ["GradCAM", "Saliency"]
    of_saliency = summary["methods"]["Saliency"]
    energy = of_saliency["scores"]["energy_in_box"]
    assert energy["n"] == 3
    assert energy["mean"] == pytest.approx(0.5)
    assert energy["class_mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert (energy["low"], energy["high"]) == interval_of_mean([0.2, 0.4, 0.9])
    assert of_saliency["n_degenerate"] == 1
    missing = of_saliency["scores"]["randomization_ssim"]
    nothing = {"mean": None, "low": None, "high": None}
    assert missing == {**nothing, "class_mean": None, "n": 0, "right": {**nothing, "n": 0}} | {
        "label": {**nothing, "n": 0}
    }
    assert of_saliency["curves"]["randomization_correlation_curve"] == pytest.approx([0.9, 0.8])
    assert of_saliency["curves"]["randomization_ssim_curve"] is None
    assert summary["failing_randomization"] == []  # of three images nobody can say
    assert summary["undecided_randomization"] == ["Saliency"]


def test_order_of_the_rows_does_not_matter_to_the_mean(module: AttributionModule) -> None:
    rows = table(module)
    turned = rows.take(list(range(len(rows)))[::-1])
    first, second = (summarize_attribution(t)["methods"]["GradCAM"]["scores"]["energy_in_box"] for t in (rows, turned))
    assert first["mean"] == pytest.approx(second["mean"])


def test_rows_in_a_folder_give_what_those_in_the_memory_do(module: AttributionModule, tmp_path: Path) -> None:
    rows = table(module)
    for part in (rows.slice(5), rows.slice(0, 5)):
        write_part(tmp_path / part_name(0), part.to_pylist(), module.schema)
    assert module.summarize(StoredRows(tmp_path)) == module.summarize(rows)


def test_methods_are_ranked_by_each_score(module: AttributionModule) -> None:
    summary = module.summarize(table(module))
    assert summary["better"]["randomization_correlation_curve"] == "lower"
    # The maps of "a" have no correlation, and none has a similarity.
    assert {name: (of["better"], of["n"]) for name, of in summary["ranking"].items()} == {
        "energy_in_box": ("higher", 3),
        "randomization_correlation": ("lower", 2),
    }
    _, places = report_attribution(summary).tables
    assert places.header == ["score", "better", "GradCAM", "Saliency", "images ranked"]
    assert places.rows == [
        ["energy_in_box", "higher", "1-2", "1-2", "3"],
        ["randomization_correlation", "lower", "1-2", "1-2", "2"],
    ]
    assert any(
        "Too few images to rank methods by energy_in_box (3 images)" in note
        for note in report_attribution(summary).notes
    )


@pytest.mark.parametrize(("n", "are_rows"), [(MOST_COLUMNS, False), (MOST_COLUMNS + 1, True)])
def test_many_methods_are_rows(module: AttributionModule, n: int, are_rows: bool) -> None:
    summary = module.summarize(table(module))
    methods = {f"method {k}": summary["methods"]["GradCAM"] for k in range(n)}
    places = {name: {"mean": 0.5, "best_place": 1, "worst_place": n} for name in methods}
    ranking = {"energy_in_box": {"better": "higher", "n": 3, "methods": places, "pairs": []}}
    scores, ranked = report_attribution(
        module.summarize(table(module)) | {"methods": methods, "ranking": ranking}
    ).tables
    names, rows = list(methods), [row[0] for row in scores.rows]
    assert (rows == [*names, "maps scored"]) is are_rows
    assert (scores.header[1:] == [*names, "maps scored"]) is not are_rows
    wide = ranked.transposed() if are_rows else ranked
    assert list(wide.header) == ["score", "better", *names, "images ranked"]
    assert [list(row) for row in wide.rows] == [["energy_in_box", "higher", *[f"1-{n}"] * n, "3"]]


def test_places_do_not_depend_on_the_parts(module: AttributionModule, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = [
        {"path": f"{k:02}", "status": "ok", "method": method, "energy_in_box": draws.random(), "degenerate": False}
        for k in range(20)
        for method in ("GradCAM", "Saliency")
    ]
    rows = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    for part in (rows.slice(14), rows.slice(0, 14)):
        write_part(tmp_path / part_name(0), part.to_pylist(), module.schema)
    ranking = module.summarize(rows)["ranking"]
    assert 0 < ranking["energy_in_box"]["pairs"][0]["p"] < 1
    assert module.summarize(StoredRows(tmp_path))["ranking"] == ranking


def test_an_image_under_two_paths_is_one(module: AttributionModule) -> None:
    """A photo of two objects, in the folder of each, and a third path that nobody knows the pixels of."""
    paths = [("circle/a", 7), ("cross/a", 7), ("circle/b", None)]
    rows = [
        {"path": path, "status": "ok", "fingerprint": of, "method": method, "energy_in_box": k / 2, "degenerate": False}
        for k, (path, of) in enumerate(paths)
        for method in ("GradCAM", "Saliency")
    ]
    rows = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    assert units_of(rows).tolist() == [0, 0, 0, 0, 1, 1]
    summary = module.summarize(rows)
    energy = summary["methods"]["GradCAM"]["scores"]["energy_in_box"]
    assert (energy["n"], energy["mean"]) == (3, (0.25 + 1) / 2)
    assert (energy["low"], energy["high"]) == interval_of_mean([0.25, 1])
    assert summary["ranking"]["energy_in_box"]["n"] == 2


def test_one_table_has_both_targets_with_misclassified_images_in_and_out(module: AttributionModule) -> None:
    """Where an image was classified rightly label and prediction are one class, whichever is explained."""
    found = (("a", 0.5, 0.5), ("b", 0.75, 0.75), ("wrong", 0.1, 0.9), ("no box", None, 0.8))
    rows = [
        {"path": path, "status": "ok", "label": 0, "method": "GradCAM", "energy_in_box": energy, "degenerate": False}
        | {"label.energy_in_box": of_label, "top1": path in ("a", "b"), "target": 0}
        for path, energy, of_label in found
    ]
    rows = pa.Table.from_pylist([{name: row.get(name) for name in module.schema.names} for row in rows], module.schema)
    summary = module.summarize(rows)
    energy = summary["methods"]["GradCAM"]["scores"]["energy_in_box"]
    assert (energy["mean"], energy["label"]["mean"], energy["right"]["mean"]) == pytest.approx((0.45, 0.7375, 0.625))
    assert (energy["n"], energy["label"]["n"], energy["right"]["n"]) == (3, 4, 2)
    for part, values in (("right", [0.5, 0.75]), ("label", [0.5, 0.75, 0.9, 0.8])):
        assert (energy[part]["low"], energy[part]["high"]) == interval_of_mean(values)
    (scores,) = report_attribution(summary).tables
    shown = {"predicted class": "3", "label's class": "4", "classified rightly": "2"}
    assert {row[0]: row[-1] for row in scores.rows} == {f"energy_in_box, {words}": n for words, n in shown.items()}
    without = rows.drop_columns([name for name in rows.schema.names if name.startswith("label.")])
    report = report_attribution(summarize_attribution(without), target="predicted")
    assert [row[0] for row in report.tables[0].rows] == ["energy_in_box", "energy_in_box, classified rightly"]
    assert any("--model.target both scores" in note for note in report.notes)
    right = report_attribution(module.summarize(rows.slice(0, 2)))
    assert [row[0] for row in right.tables[0].rows] == ["energy_in_box"]


def test_figures_of_the_run(module: AttributionModule, tmp_path: Path) -> None:
    figures = dict(module.run_figures(module.summarize(table(module)), tmp_path))
    assert list(figures) == ["scores", "ranking", "randomization_correlation_curve"]
    titles = [axes.get_title() for axes in figures["scores"].axes if axes.get_visible()]
    assert titles == [
        "energy in box\n(higher is better)",
        "randomization correlation\n(lower is better)",
        *("randomization correlation first", "randomization correlation end"),
    ]
    (axes,) = figures["randomization_correlation_curve"].axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["classifier.6", "features.28"]
    assert [line.get_label() for line in axes.lines] == ["GradCAM", "Saliency"]
    assert axes.lines[1].get_ydata().tolist() == pytest.approx([0.9, 0.8])
    assert dict(module.run_figures(module.summarize(table(module).slice(6)), tmp_path)) == {}


UNSCORED = {
    "no boxes": (False, {}, ["energy_in_box"], r"of the target class: name their folder, --data\.boxes, or"),
    "boxes of others": (
        *(True, {}, ["pointing_game", "energy_in_box"]),
        r"pointing_game, energy_in_box\. Boxes were given, but .* A box's file is called as its image is",
    ),
    "wrong boxes": (True, {"n_box_errors": 3}, ["energy_in_box"], r"Boxes were given, .* boxes of 3 images are wrong"),
    "other predictions": (True, {"n_labelled": 2}, ["energy_in_box"], r"as one of .* own classes, --model\.target"),
    "shards": (None, {}, ["energy_in_box"], r"No image has a box .* If there are none: scores .*--data"),
    "no pairs": (True, {}, ["class_discrimination"], r"boxes of the class that is explained and of another one\.$"),
    "no labels": (True, {}, ["localization_error_top1"], r"The images have no labels, .* folders of classes\.$"),
    "maps that show nothing": (False, {}, ["insertion"], r"No map could be scored: insertion\.$"),
}


@pytest.mark.parametrize(("has_boxes", "counts", "scores", "note"), UNSCORED.values(), ids=UNSCORED)
def test_what_is_said_of_scores_that_no_map_has(
    has_boxes: bool | None, counts: dict, scores: list[str], note: str
) -> None:
    none = {"mean": None, "low": None, "high": None, "class_mean": None, "n": 0}
    method = {"n_degenerate": 0, "scores": dict.fromkeys(scores, none), "curves": {}}
    summary: dict = dict.fromkeys(("n_images", "n_failed", "n_box_errors", "n_labelled"), 0)
    summary |= dict.fromkeys(("top1", "top5"))
    summary |= {"methods": {"GradCAM": method}, "ranking": {}, "failing_randomization": []}
    summary |= {"undecided_randomization": []} | counts
    (said,) = report_attribution(summary, has_boxes, target="predicted").notes
    assert re.search(note, said)
    assert ("--data.boxes" in said) == (has_boxes is not True and "insertion" not in scores)
    (said,) = report_attribution(summary, has_boxes, target="label").notes
    assert "--model.target label" not in said
