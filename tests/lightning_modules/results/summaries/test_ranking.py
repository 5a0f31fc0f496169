from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.results.comparison.paired import paired_difference
from lightning_modules.results.summaries import ranking
from lightning_modules.results.summaries.ranking import place, rank_methods


def scores_of(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores that share most of what is particular to an image."""
    draws = np.random.default_rng(seed)
    of_image = draws.normal(size=n)
    return {name: of_image + mean + 0.1 * draws.normal(size=n) for name, mean in (("a", 0), ("b", 0.5), ("c", 0.51))}


def test_places_and_differences() -> None:
    scores = scores_of(60)
    ranked = rank_methods(scores)
    assert ranked is not None
    assert (ranked["better"], ranked["n"], ranked["interval"]) == ("higher", 60, "bootstrap")
    assert {name: place(of) for name, of in ranked["methods"].items()} == {"b": "1-2", "c": "1-2", "a": "3"}
    assert [(pair["first"], pair["second"]) for pair in ranked["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in ranked["pairs"]:
        mean = scores[pair["second"]].mean() - scores[pair["first"]].mean()
        assert pair["difference"] == pytest.approx(mean, abs=1e-12)
        assert pair["low"] < mean < pair["high"]
    assert next(iter(rank_methods(scores, "lower")["methods"])) == "a"
    assert place(rank_methods(scores, "lower")["methods"]["a"]) == "1"


def test_two_methods_have_the_interval_of_their_difference() -> None:
    first, second = np.random.default_rng(1).normal(size=(2, 200))
    (pair,) = rank_methods({"first": first, "second": second})["pairs"]
    alone = paired_difference(first, second)
    assert pair["difference"] == pytest.approx(alone.difference, abs=1e-12)
    # One is symmetric, the other is not; both are of 1,000 resamples.
    assert pair["high"] - pair["low"] == pytest.approx(alone.high - alone.low, rel=0.1)


def test_all_intervals_hold_at_once() -> None:
    """Of methods that are alike, a pair is told apart in one of twenty experiments, not in most of them."""
    n_wrong = 0
    for seed in range(200):
        alike = np.random.default_rng(seed).normal(size=(8, 100))
        ranked = rank_methods(dict(zip("abcdefgh", alike)))
        n_wrong += any(pair["low"] > 0 or pair["high"] < 0 for pair in ranked["pairs"])
    assert n_wrong <= 22  # of 200 with 5 % each, more than 22 in one of 3,000 such tests; single intervals give over 80


def test_only_images_that_all_have_count() -> None:
    scores = scores_of(30)
    scores["a"][:10] = np.nan
    ranked = rank_methods(scores)
    assert ranked == rank_methods({name: of[10:] for name, of in scores.items()})
    assert ranked["n"] == 20
    scores["b"][11:] = np.nan
    assert rank_methods(scores) is None
    assert rank_methods({"a": scores["a"]}) is None
    assert rank_methods({}) is None


def test_the_same_difference_everywhere_has_no_spread() -> None:
    first = np.random.default_rng(0).random(50)
    ranked = rank_methods({"first": first, "equal": first.copy(), "more": first + 0.1})
    assert {name: place(of) for name, of in ranked["methods"].items()} == {"more": "1", "first": "2-3", "equal": "2-3"}
    equal, more, _ = ranked["pairs"]
    assert (equal["low"], equal["high"]) == (0, 0)
    assert more["low"] == pytest.approx(0.1) == more["high"]


def test_of_many_images_the_formula_comes_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(2000)
    resampled = rank_methods(scores)
    monkeypatch.setattr(ranking, "MOST_RESAMPLED", 1999)
    by_formula = rank_methods(scores)
    assert (resampled["interval"], by_formula["interval"]) == ("bootstrap", "normal")
    assert list(resampled["methods"]) == list(by_formula["methods"])
    for one, other in zip(resampled["pairs"], by_formula["pairs"]):
        assert one["difference"] == other["difference"]
        assert one["high"] - one["low"] == pytest.approx(other["high"] - other["low"], rel=0.1)


def test_resamples_that_were_drawn_for_other_scores() -> None:
    """Of as many images they are the same; of others they are drawn anew."""
    resamples = ranking.Resamples()
    for n, seed in ((60, 0), (60, 1), (41, 2), (60, 3)):
        scores = scores_of(n, seed)
        assert rank_methods(scores, "lower", resamples) == rank_methods(scores, "lower")
    drawn = np.random.default_rng(0)
    expected = [np.bincount(drawn.integers(60, size=60), minlength=60) for _ in range(3)]
    np.testing.assert_array_equal(resamples.counts(60)[:3], expected)
    assert resamples.counts(60) is resamples.counts(60)
