"""Rows of two runs, paired and compared; the numbers by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from lightning_modules.errors import InputError
from lightning_modules.results.comparison.differences import (
    most_changed,
    report_comparisons,
    score_to_rank_by,
    summarize_comparisons,
    table_of_changed,
)
from lightning_modules.results.comparison.measured import Measured, measured
from lightning_modules.results.comparison.pairing import pairs_of
from lightning_modules.results.storage import StoredRows, read_rows, write_part
from lightning_modules.results.summaries.verdicts import verdict_columns

FIELDS = {
    **dict.fromkeys(("path", "status", "error", "label_name", "prediction_name", "method", "variant"), pa.string()),
    **dict.fromkeys(("label", "prediction", "target"), pa.int64()),
    **dict.fromkeys(("top1", "top5", "success", "degenerate"), pa.bool_()),
}


def run_of(rows: Sequence[Mapping[str, Any]], name: str = "a", **facts: Any) -> Measured:
    names = dict.fromkeys(key for row in rows for key in row)
    fields = [pa.field(key, FIELDS.get(key, pa.float64())) for key in names]
    return measured(pa.Table.from_pylist([dict(row) for row in rows], pa.schema(fields)), name, **facts)


def rows_of(scores: Mapping[str, Mapping[str, float | None]], **of_images: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each image and method, by path -> method -> insertion; and further columns, by path."""
    found = []
    for path, of in scores.items():
        for method, value in of.items():
            row = {"path": path, "status": "ok", "label": 0, "label_name": "cat", "prediction": 0}
            row |= {"prediction_name": "cat", "top1": True, "target": 0, "method": method}
            row |= {"degenerate": value is None, "insertion": value}
            found.append(row | {name: values[path] for name, values in of_images.items() if path in values})
    return found


A = {"x": {"CAM": 0.1, "IG": 0.5}, "y": {"CAM": 0.2, "IG": 0.5}, "z": {"CAM": 0.3, "IG": None}}
B = {"x": {"CAM": 0.4, "IG": 0.5}, "y": {"CAM": 0.2, "IG": 0.1}, "z": {"CAM": 0.9, "IG": 0.8}}


@pytest.fixture
def first() -> Measured:
    return run_of(rows_of(A, top1={"x": True, "y": True, "z": False}), "a")


@pytest.fixture
def second() -> Measured:
    return run_of(rows_of(B, top1={"x": False, "y": False, "z": False}), "b")


def of(summary: Mapping[str, Any], score: str, group: str, run: str = "b") -> dict[str, Any]:
    (found,) = [of for of in summary["comparisons"][run]["scores"] if (of["score"], of["group"]) == (score, group)]
    return found


def test_scores_of_each_method_and_accuracy_of_each_image(first: Measured, second: Measured) -> None:
    summary = summarize_comparisons([pairs_of(first, second)])
    cam, ig, top1 = of(summary, "insertion", "CAM"), of(summary, "insertion", "IG"), of(summary, "top1", "")
    assert (cam["n"], cam["first"], cam["second"], cam["difference"]) == pytest.approx((3, 0.2, 0.5, 0.3))
    assert cam["low"] < 0.3 < cam["high"]
    assert (ig["n"], ig["n_unpaired"], ig["difference"]) == pytest.approx((2, 1, -0.2))
    # Once for an image, not once for each of its methods.
    assert (top1["n"], top1["only_first"], top1["only_second"], top1["p"]) == (3, 2, 0, 0.5)
    assert (top1["first"], top1["second"]) == pytest.approx((2 / 3, 0))
    report = report_comparisons(summary)
    flags, numbers = report.tables
    assert flags.rows == [["top-1", "66.7%", "0.0%", flags.rows[0][3], "2", "0", "p = 0.500", "3"]]
    assert flags.rows[0][3].startswith("-66.7% [-100.0%, ")
    assert [row[:4] for row in numbers.rows] == [["insertion", "CAM", "0.200", "0.500"], ["", "IG", "0.500", "0.300"]]
    notes = " ".join(report.notes)
    assert "A positive difference means more than in a." in notes
    assert "of 3 intervals" in notes
    assert "Maps of a that show nothing, and may have no score: 1 of IG." in notes
    assert "no pairs of it: insertion of IG (1)" in notes
    assert report.scalars["3_scores/difference_insertion/CAM/b"] == pytest.approx(0.3)


def test_pairs_are_by_path_whatever_the_order_of_the_rows(first: Measured) -> None:
    turned = run_of(rows_of(B, top1={"x": False, "y": False, "z": False})[::-1], "b")
    cam = of(summarize_comparisons([pairs_of(first, turned)]), "insertion", "CAM")
    assert cam["difference"] == pytest.approx(0.3)


def test_several_runs_are_corrected_together(first: Measured, second: Measured) -> None:
    third = run_of(rows_of(A, top1={"x": True, "y": True, "z": True}), "c")
    summary = summarize_comparisons([pairs_of(first, second), pairs_of(first, third)])
    assert [of(summary, "top1", "", run)["p"] for run in "bc"] == [0.5, 1]
    assert [of(summary, "top1", "", run)["p_holm"] for run in "bc"] == [1, 1]
    assert "corrected by Holm for 2 tests" in report_comparisons(summary).notes[0]


def test_failed_images_are_no_pairs_and_are_told(first: Measured) -> None:
    rows = [*rows_of({path: B[path] for path in "xy"}), {"path": "z", "status": "failed", "error": "it is no image"}]
    pairs = pairs_of(first, run_of(rows, "b"))
    assert list(pairs.paths) == ["x", "y"]
    assert "1 image failed (0 in a, 1 in b) and left out: z." in pairs.notes


def test_what_only_one_has_is_refused_or_left_out(first: Measured) -> None:
    fewer = run_of(rows_of({path: {"CAM": 0.5} for path in ("x", "y", "v", "w")}), "b")
    message = r"1 image only in a: z; 2 images only in b: v, w; 1 method only in a: IG\. What both have .* --common"
    with pytest.raises(InputError, match=message):
        pairs_of(first, fewer)
    pairs = pairs_of(first, fewer, common=True)
    assert list(pairs.paths) == ["x", "y"]
    assert pairs.notes[0].startswith("Left out: 1 image only in a: z; 2 images only in b: v, w; 1 method only in a")
    assert of(summarize_comparisons([pairs]), "insertion", "CAM")["difference"] == pytest.approx(0.35)


def test_scores_that_an_older_version_did_not_have(first: Measured) -> None:
    older = run_of([{key: row[key] for key in row if key != "top1"} for row in rows_of(B)], "b")
    with pytest.raises(InputError, match="1 score only in a: top1"):
        pairs_of(first, older)
    assert of(summarize_comparisons([pairs_of(first, older, common=True)]), "insertion", "IG")["n"] == 2
    with pytest.raises(InputError, match="rows of old have no column status: another version"):
        run_of([{"path": "x", "insertion": 0.5}], "old")


def test_other_images_altogether(first: Measured) -> None:
    others = run_of(rows_of({"v": B["x"]}), "b")
    with pytest.raises(InputError, match="a and b have no pair: 3 images only in a: x, y, z; 1 image only in b: v"):
        pairs_of(first, others, common=True)


def test_other_evaluations(first: Measured) -> None:
    attacked = run_of([{"path": "x", "status": "ok", "eps": 0.0, "top1": True}], "b")
    with pytest.raises(
        InputError, match="different evaluations: a has a row for each method, b has a row for each eps"
    ):
        pairs_of(first, attacked)


def test_other_labels(first: Measured) -> None:
    labels = {"x": "cat", "y": "dog", "z": None}
    with pytest.raises(InputError, match="2 of 3 images have other labels in a than in b: y is 'cat' and 'dog'"):
        pairs_of(first, run_of(rows_of(B, label_name=labels), "b"))


def test_other_classes_and_other_targets_are_told(first: Measured) -> None:
    told = pairs_of(first, run_of(rows_of(B, target={"x": 3, "y": 3, "z": 0}), "b")).notes
    assert any(each.startswith("Of 2 of the 3 images another class is explained") for each in told)
    ten = run_of(rows_of(B, prediction={"y": 4}, prediction_name={"y": "owl"}), "b", n_classes=10)
    more = run_of(rows_of(A, prediction={"y": 4}, prediction_name={"y": "eel"}), "a", n_classes=1000)
    told = pairs_of(more, ten).notes
    assert "The networks of a and b know different classes (1,000 and 10; class 4 is 'eel' and 'owl')" in told[0]


def test_budgets() -> None:
    rows = [
        {"path": path, "status": "ok", "eps": eps, "top1": top1, "success": None if not eps else not top1}
        | {"probability_label": 0.5, "linf": eps, "smallest_eps": 1 / 255, "CAM.rank_correlation": eps * 10 or None}
        for path in "xy"
        for eps, top1 in ((0.0, True), (1 / 255, path == "x"))
    ]
    run = run_of(rows)
    assert list(run.groups) == ["0", "1/255"]
    assert list(run.groups["0"]) == ["top1", "probability_label"]
    assert set(run.groups["1/255"]) == {"top1", "success", "probability_label", "linf", "CAM.rank_correlation"}
    moved = [row | {"CAM.rank_correlation": 0.25} if row["eps"] else row for row in rows]
    pairs = pairs_of(run, run_of(moved, "b"))
    summary = summarize_comparisons([pairs])
    assert of(summary, "CAM.rank_correlation", "1/255")["difference"] == pytest.approx(0.25 - 10 / 255)
    assert of(summary, "success", "1/255")["first"] == 0.5
    assert score_to_rank_by(pairs, None) == "probability_label"


def test_made_images_and_their_judges() -> None:
    ranks = {"a": (1, 7), "b": (2, 1)}
    runs = []
    for name, of_run in ranks.items():
        rows = [
            {"path": f"{k}.png", "status": "ok", "variant": "both", "total_variation": 0.1 * k}
            | dict(zip(verdict_columns("resnet").values(), (0.5, rank, "cat")))
            for k, rank in enumerate(of_run)
        ]
        fields = [("path", pa.string()), ("status", pa.string()), ("variant", pa.string())]
        fields += [("total_variation", pa.float64()), ("judge.resnet.probability", pa.float64())]
        fields += [("judge.resnet.rank", pa.int64()), ("judge.resnet.prediction_name", pa.string())]
        runs.append(measured(pa.Table.from_pylist(rows, pa.schema(fields)), name))
    named = of(summarize_comparisons([pairs_of(*runs)]), "named first by resnet", "both")
    assert (named["only_first"], named["only_second"], named["n"]) == (1, 1, 2)


def test_the_images_that_changed_most(first: Measured, second: Measured) -> None:
    pairs = pairs_of(first, second)
    assert score_to_rank_by(pairs, None) == "insertion"
    with pytest.raises(InputError, match="--score: both runs have no score 'deletion', but top1, insertion"):
        score_to_rank_by(pairs, "deletion")
    changed = most_changed(pairs, "insertion", 5)
    assert [(of.path, of.group) for of in changed] == [("z", "CAM"), ("y", "IG"), ("x", "CAM")]
    (table,) = table_of_changed(pairs, "insertion", changed[:1])
    assert table.rows == [["z", "CAM", "0.300", "0.900", "+0.600"]]
    assert most_changed(pairs_of(first, first), "insertion", 5) == []
    assert table_of_changed(pairs, "insertion", []) == []


def test_two_methods_of_one_run(first: Measured) -> None:
    cam, ig = (first.of_method(name, name, with_images=False) for name in ("CAM", "IG"))
    summary = summarize_comparisons([pairs_of(cam, ig)])
    score = of(summary, "insertion", "", "IG")
    assert (score["n"], score["difference"]) == pytest.approx((2, 0.35))
    assert report_comparisons(summary).tables[0].header[:3] == ["mean of the score", "CAM", "IG"]
    with pytest.raises(InputError, match="--methods: a has no rows of 'LIME', but those of CAM, IG"):
        first.of_method("LIME", "LIME", with_images=False)


def test_rows_in_a_folder_are_measured_as_those_in_the_memory(tmp_path: Path) -> None:
    """A column at a time, from parts in which images and methods come in another order; one failed, one has one map."""
    schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in ("path", "status", "label_name", "method")),
            *(pa.field(name, pa.int64()) for name in ("label", "target")),
            *(pa.field("top1", pa.bool_()), pa.field("degenerate", pa.bool_()), pa.field("score", pa.float64())),
        ]
    )
    rows: list[dict[str, Any]] = [
        {"path": path, "status": "ok", "label_name": "cat", "method": method, "label": 1, "target": k, "top1": k > 1}
        | {"degenerate": method == "B", "score": 0.1 * k + (method == "B")}
        for method in ("B", "A")
        for k, path in enumerate("dcba")
    ]
    rows = [{"path": "e", "status": "failed"}, *rows[:-1]]
    for k, part in enumerate((rows[::2], rows[1::2])):
        write_part(tmp_path / f"part-{k}.parquet", part, schema)
    stored = measured(StoredRows(tmp_path), "one")
    whole = measured(read_rows(tmp_path), "one")
    for run in (stored, whole):
        assert list(run.groups) == ["", "B", "A"]
        assert run.groups["A"]["score"].to_dict() == pytest.approx({"b": 0.2, "c": 0.1, "d": 0.0})
        assert run.groups["B"]["score"].to_dict() == pytest.approx({"a": 1.3, "b": 1.2, "c": 1.1, "d": 1.0})
        assert run.images["target"].to_dict() == {"a": 3, "b": 2, "c": 1, "d": 0}
        assert (list(run.failed), run.n_degenerate, run.flags) == (["e"], {"B": 4}, {"top1"})
    pd.testing.assert_frame_equal(stored.images, whole.images)


LAYERS = ("GradCAM(layer='features.29')", "GradCAM(layer='layer4')")


def test_methods_that_look_at_layers_of_other_names_are_paired_by_their_class() -> None:
    """Two networks have no layer in common; what differs in other options is another method."""
    first, second = (
        run_of(rows_of({"x": {layer: k, "IG": 0.5, f"SmoothGrad(n_samples={k})": 0.1}}), name)
        for k, (layer, name) in enumerate(zip(LAYERS, "ab"))
    )
    with pytest.raises(InputError, match=r"1 method only in a: SmoothGrad\(n_samples=0\); 1 method only in b: "):
        pairs_of(first, second)
    pairs = pairs_of(first, second, common=True)
    assert list(pairs.groups) == ["", "GradCAM", "IG"]
    assert [values.tolist() for values in pairs.values("GradCAM", "insertion")] == [[0.0], [1.0]]
    assert f"GradCAM looks at other layers: {LAYERS[0]} in a is paired with {LAYERS[1]} in b." in pairs.notes
    assert not any("Left out" in told and "GradCAM" in told for told in pairs.notes)
    # Of several layers in one run nobody knows which is meant.
    both = run_of(rows_of({"x": dict.fromkeys(LAYERS, 0.2)}), "both")
    other = run_of(rows_of({"x": {"GradCAM(layer='body.3')": 0.2}}), "other")
    with pytest.raises(InputError, match="2 methods only in both"):
        pairs_of(both, other)
    # The layer by default has no name: it stays as the rows have it where the other run has it too.
    default = run_of(rows_of({"x": {"GradCAM": 0.2, LAYERS[0]: 0.4}}), "default")
    third = run_of(rows_of({"x": {"GradCAM": 0.1, LAYERS[1]: 0.3}}), "third")
    assert list(pairs_of(default, third).groups) == ["", "GradCAM", LAYERS[0]]


def test_methods_of_attacked_images_are_paired_by_their_class_too() -> None:
    first, second = (
        run_of(
            [
                {"path": "x", "status": "ok", "eps": eps, "success": True, f"{layer}.rank_correlation": k + eps}
                for eps in (0.0, 0.5)
            ],
            name,
        )
        for k, (layer, name) in enumerate(zip(LAYERS, "ab"))
    )
    pairs = pairs_of(first, second)
    assert [values.tolist() for values in pairs.values("0.5", "GradCAM.rank_correlation")] == [[0.5], [1.5]]
