from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lightning_modules.results.scores import mean_and_interval, mean_or_none, share_with_interval, summarize_score
from lightning_modules.results.statistics import interval_of_mean


def test_a_score_is_summarized_as_pandas_does() -> None:
    rng = np.random.default_rng(0)
    values, classes = rng.random(500), rng.integers(0, 7, 500).astype(float)
    values[::9], classes[5] = np.nan, np.nan
    summary = summarize_score(values, classes)
    frame = pd.DataFrame({"value": values, "class": classes}).dropna(subset=["value"])
    assert summary["n"] == len(frame)
    assert summary["mean"] == pytest.approx(frame["value"].mean(), rel=1e-12)
    assert summary["class_mean"] == frame.groupby("class")["value"].mean().mean()
    assert (summary["low"], summary["high"]) == interval_of_mean(frame["value"])


def test_two_maps_of_an_image_are_no_two_images() -> None:
    """Each value twice is no more evidence than once."""
    values = np.random.default_rng(0).random(12)
    twice = summarize_score(np.repeat(values, 2), np.zeros(24), np.repeat(np.arange(12), 2))
    once = summarize_score(values, np.zeros(12))
    assert (twice.pop("n"), once.pop("n")) == (24, 12)
    assert twice == pytest.approx(once)
    as_if_alone = summarize_score(np.repeat(values, 2), np.zeros(24))
    assert as_if_alone["high"] - as_if_alone["low"] < 0.75 * (once["high"] - once["low"])


def test_nothing_and_single_values() -> None:
    nothing = dict.fromkeys(("mean", "low", "high", "class_mean"))
    assert summarize_score(np.array([np.nan]), np.zeros(1)) == {**nothing, "n": 0}
    assert mean_and_interval(np.array([0.25])) == {"mean": 0.25, "low": None, "high": None}
    assert share_with_interval(mean_and_interval(np.array([1.0]))) == "100.0%"
    assert share_with_interval(mean_and_interval(np.array([]))) == "-"


def test_a_mean_leaves_out_what_is_missing() -> None:
    assert mean_or_none(np.array([1, np.nan, 2])) == 1.5
    assert mean_or_none(np.array([np.nan])) is None
