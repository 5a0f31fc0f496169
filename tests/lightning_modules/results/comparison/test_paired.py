from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_modules.errors import InputError
from lightning_modules.results.comparison.paired import McNemar, holm, mcnemar, paired_difference
from lightning_modules.results.statistics import interval_of_mean


def test_means_and_difference_are_over_the_pairs() -> None:
    first = np.array([0.2, np.nan, 0.4, 0.6, np.nan])
    second = np.array([0.5, 0.9, np.nan, 0.7, np.nan])
    found = paired_difference(first, second)
    assert (found.n, found.n_unpaired) == (2, 2)
    assert (found.first, found.second, found.difference) == pytest.approx((0.4, 0.6, 0.2))


def test_the_interval_is_near_that_of_images_drawn_again_with_both_scores() -> None:
    random = np.random.default_rng(3)
    hard = random.normal(0, 5, 60)  # some images are hard for both, which pairs take out
    first, second = hard + random.normal(0, 0.5, 60), hard + 0.4 + random.normal(0, 0.5, 60)
    found = paired_difference(first, second)
    drawn = []
    for _ in range(2000):
        images = random.integers(0, 60, 60)
        drawn.append(second[images].mean() - first[images].mean())
    assert (found.low, found.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.03)
    ends = [interval_of_mean(values) for values in (first, second)]
    assert found.high - found.low < (ends[0][1] - ends[0][0]) / 5


def test_turned_round() -> None:
    first, second = np.random.default_rng(0).random((2, 30))
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.first, other.second) == (one.second, one.first)


def test_nothing_that_differs() -> None:
    values = np.array([0.1, 0.7, 0.7])
    found = paired_difference(values, values)
    assert (found.difference, found.low) == (0, pytest.approx(-found.high))
    assert 0 < found.high < 1  # three that agree do not show that all do


def test_few_pairs() -> None:
    assert paired_difference(np.array([np.nan]), np.array([1.0]))[:3] == (0, 1, None)
    one = paired_difference(np.array([0.25]), np.array([1.0]))
    assert (one.difference, one.low, one.high) == (0.75, None, None)


def test_other_lengths() -> None:
    with pytest.raises(InputError, match=r"one length, got \(2,\) and \(3,\)"):
        paired_difference(np.zeros(2), np.zeros(3))


def by_counting(only_first: int, only_second: int) -> float:
    """All outcomes of fair coins that are no more probable than this one."""
    n = only_first + only_second
    ways = [math.comb(n, k) for k in range(n + 1)]
    return sum(way for way in ways if way <= ways[only_first]) / 2**n


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (3, 3), (2, 9), (10, 1)])
def test_mcnemar(only_first: int, only_second: int) -> None:
    first = np.array([1] * only_first + [0] * only_second + [1, 1, 0, np.nan, 1])
    second = np.array([0] * only_first + [1] * only_second + [1, 1, 0, 1, np.nan])
    expected = McNemar(only_first + only_second + 3, only_first, only_second, by_counting(only_first, only_second))
    assert mcnemar(first, second) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    # Sorted: 0.01 · 4, 0.02 · 3, 0.03 · 2 (not below the one before), 0.9 · 1.
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.4, 0.7]) == pytest.approx([0.8, 0.8])
    assert holm([0.7, 0.6]) == [1, 1]
    assert holm([]) == []
