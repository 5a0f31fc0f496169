from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lightning_modules.results import scores
from lightning_modules.results.scores import (
    MOST_RESAMPLED,
    bootstrap_interval,
    mean_or_none,
    normal_interval,
    summarize_score,
)


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 4000)
    low, high = bootstrap_interval(values)
    half = 1.96 * 2 / np.sqrt(4000)
    assert low == pytest.approx(values.mean() - half, abs=half / 5)
    assert high == pytest.approx(values.mean() + half, abs=half / 5)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(np.array([2.0])) == (2.0, 2.0)


def test_both_intervals_agree_where_one_gives_way_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the noise of 1,000 resamples, which is 4 % of half the interval at each end."""
    rng = np.random.default_rng(0)
    energy, classes = rng.beta(2, 5, MOST_RESAMPLED), rng.integers(0, 9, MOST_RESAMPLED).astype(float)
    resampled = summarize_score(energy, classes)
    monkeypatch.setattr(scores, "MOST_RESAMPLED", MOST_RESAMPLED - 1)
    computed = summarize_score(energy, classes)
    assert (resampled.pop("interval"), computed.pop("interval")) == ("bootstrap", "normal")
    half = (computed["high"] - computed["low"]) / 2
    for end in ("low", "high"):
        assert computed.pop(end) == pytest.approx(resampled.pop(end), abs=half / 10)
    assert computed == resampled


def test_the_normal_interval_is_as_skewed_as_that_of_many_resamples() -> None:
    values = np.random.default_rng(0).exponential(size=1000) ** 3
    low, high = normal_interval(values)
    expected = bootstrap_interval(values, n_resamples=20_000)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert [low, high] == pytest.approx(expected, abs=half / 30)
    # Without its skewness, it would lie elsewhere.
    assert abs(values.mean() - half - low) > half / 20
    assert abs(values.mean() + half - high) > half / 20


def test_the_normal_interval_lies_within_the_values() -> None:
    rare = np.zeros(200_000)
    rare[7] = 1
    low, high = normal_interval(rare)
    # Of as many draws, one hit on average: none to three are drawn in 95 of 100.
    assert low == 0
    assert 2.5 / 200_000 < high < 3.5 / 200_000
    assert normal_interval(np.full(5, 0.25)) == (0.25, 0.25)


def test_a_score_is_summarized_as_pandas_does() -> None:
    rng = np.random.default_rng(0)
    values, classes = rng.random(500), rng.integers(0, 7, 500).astype(float)
    values[::9], classes[5] = np.nan, np.nan
    summary = summarize_score(values, classes)
    frame = pd.DataFrame({"value": values, "class": classes}).dropna(subset=["value"])
    assert summary["n"] == len(frame)
    assert summary["mean"] == frame["value"].mean()
    assert summary["class_mean"] == frame.groupby("class")["value"].mean().mean()
    assert (summary["low"], summary["high"]) == bootstrap_interval(frame["value"].to_numpy())


def test_a_mean_leaves_out_what_is_missing() -> None:
    assert mean_or_none(np.array([1, np.nan, 2])) == 1.5
    assert mean_or_none(np.array([np.nan])) is None
