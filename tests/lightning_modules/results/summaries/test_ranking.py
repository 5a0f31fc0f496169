from __future__ import annotations

import numpy as np
import pytest

from lightning_modules.results.summaries.ranking import (
    notes_of_ranking,
    notes_of_unbeaten,
    place,
    summarize_ranking,
    unbeaten,
)


def scores_of(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Scores that share most of what is particular to an image."""
    draws = np.random.default_rng(seed)
    of_image = draws.normal(size=n)
    return {name: of_image + mean + 0.1 * draws.normal(size=n) for name, mean in (("a", 0), ("b", 0.5), ("c", 0.51))}


def test_places_and_differences() -> None:
    scores = scores_of(60)
    ranked = summarize_ranking(scores, "higher")
    assert ranked is not None
    assert (ranked["better"], ranked["n"]) == ("higher", 60)
    assert {name: place(of) for name, of in ranked["methods"].items()} == {"b": "1-2", "c": "1-2", "a": "3"}
    assert [(pair["first"], pair["second"]) for pair in ranked["pairs"]] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in ranked["pairs"]:
        mean = scores[pair["second"]].mean() - scores[pair["first"]].mean()
        assert pair["difference"] == pytest.approx(mean, abs=1e-12)
        assert (pair["p"] <= 0.05) is ("a" in (pair["first"], pair["second"]))
    assert next(iter(summarize_ranking(scores, "lower")["methods"])) == "a"
    assert place(summarize_ranking(scores, "lower")["methods"]["a"]) == "1"


def test_only_images_that_all_have_count() -> None:
    scores = scores_of(30)
    scores["a"][:10] = np.nan
    ranked = summarize_ranking(scores, "higher")
    assert ranked is not None
    assert (ranked.pop("n"), ranked.pop("n_dropped")) == (20, 10)
    alone = summarize_ranking({name: of[10:] for name, of in scores.items()}, "higher")
    assert alone == ranked | {"n": 20, "n_dropped": 0}
    scores["b"][10:] = np.nan
    assert summarize_ranking(scores, "higher") is None
    assert summarize_ranking({"a": scores["a"]}, "higher") is None
    assert summarize_ranking({}, "higher") is None


@pytest.mark.parametrize(("n", "n_scores", "is_too_few"), [(5, 1, True), (6, 1, False), (6, 2, True), (7, 2, False)])
def test_too_few_images_are_reported(n: int, n_scores: int, is_too_few: bool) -> None:
    """And those that are enough tell methods apart, if they differ enough."""
    apart = {"a": np.arange(n) / 100, "b": 1 + np.arange(n) / 100}
    ranked = summarize_ranking(apart, "higher", n_scores)
    assert (ranked["methods"]["b"]["worst_place"] == 2) is is_too_few
    assert bool(notes_of_ranking({f"score {k}": ranked for k in range(n_scores)})) is is_too_few


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_who_does_not_beat_a_map_that_explains_nothing(better: str) -> None:
    """One method is better than it on all 40 images, one on 26 of them, one is worse."""
    sign = 1 if better == "higher" else -1
    noise = np.random.default_rng(0).normal(size=(3, 40)) / 10
    scores = {"Random": sign * noise[0], "good": sign * (noise[0] + 1), "bad": sign * (noise[0] - 1)}
    scores["as good"] = sign * (noise[0] + np.where(np.arange(40) < 21, 1, -1) * abs(noise[1]))
    scores["EdgeFilter"] = sign * (noise[0] + 2)
    ranking = {"insertion": summarize_ranking(scores, better)}
    found = unbeaten(ranking, ["Random", "EdgeFilter"])["insertion"]
    assert {name: sorted(methods) for name, methods in found.items()} == {
        "Random": ["as good", "bad"],
        "EdgeFilter": ["as good", "bad", "good"],
    }
    (note,) = notes_of_unbeaten({"insertion": found})
    assert note.startswith("insertion: bad, as good are not known to beat Random; good, bad, as good not EdgeFilter, ")
    assert unbeaten(ranking, []) == {}
    two = summarize_ranking({name: scores[name] for name in ("Random", "good")}, better)
    assert unbeaten({"insertion": two}, ["Random"]) == {}
