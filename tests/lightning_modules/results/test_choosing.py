"""Rows that are chosen by conditions, words and scores."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from lightning_modules import InputError
from lightning_modules.results.choosing import choose

BETTER = {"drop": "lower", "energy": "higher"}


@pytest.fixture
def rows() -> pd.DataFrame:
    """Four images of which one failed, by two methods."""
    of_image = {"path": ["a", "b", "c"], "probability": [0.5, 0.9, 0.7], "top1": [True, False, False]}
    images = pd.DataFrame(of_image).assign(status="ok", label_name="cat", prediction_name="dog")
    first = images.assign(method="A", drop=[0.1, 0.5, 0.3], energy=[0.2, 0.4, 0.4])
    second = images.assign(method="B", drop=[0.2, 0.1, 0.3], energy=[0.3, 0.4, None])
    failed = pd.DataFrame({"path": ["d"], "status": ["failed"], "error": ["cut off"]})
    table = pd.concat([first, second, failed], ignore_index=True)
    return table.astype({"top1": "boolean"})


@pytest.fixture
def attacked() -> pd.DataFrame:
    """Three images, clean and under two budgets: fooled by the first, by the second, by none."""
    rows = [
        {"path": path, "eps": eps, "success": success, "probability_label": 0.9 - eps, "prediction_name": "x"}
        for path, fooled in (("a", (False, True)), ("b", (True, True)), ("c", (False, False)))
        for eps, success in zip((0.0, 0.1, 0.2), (None, *fooled))
    ]
    return pd.DataFrame(rows).assign(status="ok", top1=True, probability=0.5).astype({"success": "boolean"})


def chosen(rows: pd.DataFrame, **options: Any) -> list[tuple[Any, ...]]:
    found = choose(rows, better=BETTER, **options)
    return list(found.rows[["path", "method"]].itertuples(index=False, name=None))


def test_a_condition_and_an_order(rows: pd.DataFrame) -> None:
    assert chosen(rows, where='method == "A" and drop > 0.2', sort=["-probability"]) == [("b", "A"), ("c", "A")]
    assert chosen(rows, where="not top1 and energy > 0.3", sort=["method", "drop"]) == [
        ("c", "A"),
        ("b", "A"),
        ("b", "B"),
    ]
    assert chosen(rows, where="top1") == [("a", "A"), ("a", "B")]  # one that may be missing is then not true
    choice = choose(rows, where="drop > 0.2", sort=["-drop", "path"])
    assert choice.words == "where drop > 0.2; by drop down, path up"
    assert choice.columns == ["drop", "path"]
    assert choice.paths(1) == ["b"]
    assert choice.paths(9) == ["b", "c"]


def test_mistakes_and_failures(rows: pd.DataFrame, attacked: pd.DataFrame) -> None:
    """The surest first, of clean images alone."""
    assert choose(rows, show="mistakes").paths(9) == ["b", "c"]
    assert choose(rows, show="mistakes", where="probability < 0.8").paths(9) == ["c"]
    assert choose(rows, show="failed").rows["error"].tolist() == ["cut off"]
    assert choose(attacked.assign(top1=attacked["eps"] > 0), show="mistakes").rows["eps"].tolist() == [0.0] * 3
    made = pd.DataFrame({"name": ["x", "y"], "prediction": [1, 2], "target": [1, 3], "probability": [0.1, 0.2]})
    made = made.assign(status="ok", path=["x", "y"], prediction_name="z")
    assert choose(made, show="mistakes").paths(9) == ["y"]


def test_scores(rows: pd.DataFrame) -> None:
    assert chosen(rows, show="worst drop")[0] == ("b", "A")
    assert chosen(rows, show="best drop")[:2] == [("a", "A"), ("b", "B")]
    assert chosen(rows, show="worst energy")[0] == ("a", "A")
    assert ("c", "B") not in chosen(rows, show="best energy")  # not scored
    labelled = rows.rename(columns={"drop": "label.drop"})
    assert chosen(labelled, show="worst label.drop")[0] == ("b", "A")


def test_disagreements(rows: pd.DataFrame) -> None:
    """By hand: the range of each score over the methods of an image, in its standard deviations, on the mean."""
    found = choose(rows, show="disagreements", better=BETTER)
    deviations = rows[["drop", "energy"]].std()
    expected = {
        "a": (0.1 / deviations["drop"] + 0.1 / deviations["energy"]) / 2,
        "b": (0.4 / deviations["drop"] + 0) / 2,
        "c": 0.0,  # the second score has one value alone
    }
    assert found.paths(9) == sorted(expected, key=lambda path: -expected[path])
    of_path = found.rows.drop_duplicates("path").set_index("path")["disagreement"]
    for path, value in expected.items():
        assert of_path[path] == pytest.approx(value)


def test_fragile_and_stable(attacked: pd.DataFrame) -> None:
    fragile = choose(attacked, show="fragile").rows
    assert fragile[["path", "eps"]].to_numpy().tolist() == [["b", 0.1], ["a", 0.2]]
    stable = choose(attacked, show="stable").rows
    assert stable[["path", "eps"]].to_numpy().tolist() == [["c", 0.2]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"where": "dorp > 1"},
            r"--where 'dorp > 1': name 'dorp' is not defined\. Columns, .*: path, .*, drop, energy",
        ),
        ({"where": "drop >"}, r"--where 'drop >' cannot be read: invalid syntax"),
        ({"where": "drop"}, "--where 'drop' is no condition, such as 'method"),
        ({"where": "1 + 1"}, "is no condition"),
        ({"sort": ["-dorp"]}, r"--sort: there is no column 'dorp'\. Columns"),
        ({"show": "good"}, "--show takes one of mistakes, disagreements, .*; got 'good'"),
        ({"show": "worst"}, "--show takes one of .*worst SCORE"),
        ({"show": "worst dorp"}, "there is no column 'dorp'"),
        (
            {"show": "worst probability"},
            "Whether more or less of probability is better, the run does not say: use --sort",
        ),
        ({"show": "fragile"}, "--show fragile needs rows with success, which this run has not"),
        ({"show": "changed drop"}, "there is no column 'drop_change'"),
    ],
)
def test_slips(rows: pd.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose(rows, better=BETTER, **options)


def test_disagreements_of_one_method(rows: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="needs the rows of several methods with a score"):
        choose(rows[rows["method"] == "A"], show="disagreements", better=BETTER)
