"""Simulations of what the intervals and places promise, and numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from lightning_modules.errors import InputError
from lightning_modules.results.statistics import (
    Place,
    interval_of_difference,
    interval_of_mean,
    means_of_units,
    p_of_pairs,
    rank_methods,
)

N_METHODS = 12
ANY = Place(1, N_METHODS)
ODD = np.arange(N_METHODS) % 2


def coverage(draw: Callable[[np.random.Generator], np.ndarray], mean: float, n_samples: int) -> float:
    """In which share of samples the interval of their mean holds the true one."""
    rng = np.random.default_rng(0)
    intervals = [interval_of_mean(draw(rng)) for _ in range(n_samples)]
    assert all(of.low < of.high for of in intervals)
    return float(np.mean([of.low <= mean <= of.high for of in intervals]))


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 20, 70])
def test_the_interval_of_numbers_holds_their_mean(n: int) -> None:
    """2,000 samples tell a share of 95 % to 1 %, two deviations."""
    drawn: dict[str, tuple[Callable[[np.random.Generator], np.ndarray], float]] = {
        "normal": (lambda rng: rng.normal(size=n), 0.0),
        "beta": (lambda rng: rng.beta(2, 5, n), 2 / 7),
        "uniform": (lambda rng: rng.random(n), 0.5),
        "skewed": (lambda rng: rng.gamma(4, size=n), 4.0),
        "rounded": (lambda rng: rng.binomial(10, 0.3, n) / 10, 0.3),
    }
    found = {name: coverage(*of, n_samples=2000) for name, of in drawn.items()}
    assert all(0.93 < share < 0.975 for share in found.values()), found
    exponential = coverage(lambda rng: rng.exponential(size=n), 1, n_samples=2000)
    assert {5: 0.9, 10: 0.915}.get(n, 0.93) < exponential < 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(5, 0.78), (20, 0.9)])
def test_the_interval_of_numbers_without_bounds_of_which_half_are_zero(n: int, least: float) -> None:
    share = coverage(lambda rng: np.where(rng.random(n) < 0.5, 0, rng.exponential(size=n)), 0.5, n_samples=1000)
    assert least < share < 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 20, 48])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_interval_of_numbers_of_which_many_are_the_same(n: int, share: float) -> None:
    """Student's alone holds the mean of 41 % of samples of 5 of which nine in ten are 1, and of 80 % of 20."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.where(rng.random(n) < share, 1, rng.random(n))

    assert coverage(draw, share + (1 - share) / 2, n_samples=1000) > 0.915


@pytest.mark.parametrize("n", [5, 10, 20, 48, 70])
def test_the_interval_of_shares_holds_them(n: int) -> None:
    """By all that may come of n images. Of a single share it may hold less, as few counts can come."""
    intervals = [interval_of_mean(np.arange(n) < k) for k in range(n + 1)]
    shares = np.linspace(0.05, 0.95, 91)
    held = [
        sum(stats.binom.pmf(k, n, p) for k, (low, high) in enumerate(intervals) if low <= p <= high) for p in shares
    ]
    assert 0.93 < np.mean(held) < 0.97
    assert np.min(held) > 0.83


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 70])
def test_the_interval_of_a_difference_of_shares_holds_it(n: int) -> None:
    rng, held = np.random.default_rng(0), []
    for one, other in ((0.5, 0.5), (0.9, 0.7), (0.95, 0.9), (0.2, 0.6)):
        for _ in range(500):
            common = rng.random(n)
            first = common < one
            second = np.where(rng.random(n) < 0.5, common, rng.random(n)) < other
            low, high = interval_of_difference(first, second)
            held.append(low <= other - one <= high)
    assert 0.93 < np.mean(held) < 0.985


def test_intervals_by_hand() -> None:
    assert interval_of_mean([1] * 19 + [0]) == pytest.approx((0.7639, 0.9911), abs=1e-4)  # Wilson
    assert interval_of_mean([True, True, False]) == interval_of_mean([1.0, np.nan, 1, 0])
    # Student's of 1, 2, 3: t = 4.3027, s = 1, g = 0.
    assert interval_of_mean([1, 2, 3]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    # One and three of six: (1 - 3) / 6 ± 1.96 sqrt((4 / 6 - 1 / 9) / 6).
    ends = interval_of_difference([1, 1, 1, 0], [1, 0, 0, 0])
    assert ends == pytest.approx((-1 / 3 - 0.5964, -1 / 3 + 0.5964), abs=1e-4)


@pytest.mark.parametrize(
    "values", [[1] * 5, [0] * 70, [0.5] * 20, [1.0] * 19 + [0.9], [-0.25] * 6, [0.7, 0.7], [3.0, 3.0, 3.0, 2.0]]
)
def test_no_interval_is_of_no_width(values: list[float]) -> None:
    low, high = interval_of_mean(values)
    assert low - 1e-12 < np.mean(values) < high + 1e-12
    assert high - low > 0.01
    low, high = interval_of_difference(values, values)
    assert low < 0 < high


def test_what_has_no_interval() -> None:
    for values in ([], [0.5], [np.nan, 1], [7.0, 7.0, 7.0], [1.0, np.inf, 2.0]):
        assert all(math.isnan(end) for end in interval_of_mean(values))
    assert all(math.isnan(end) for end in interval_of_difference([1.0], [0.5]))
    with pytest.raises(InputError, match=r"one length, got \(2,\) and \(3,\)"):
        interval_of_difference([1, 0], [1, 0, 1])


EQUAL: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=(n, N_METHODS)),
    "correlated": lambda rng, n: 3 * rng.normal(size=(n, 1)) + rng.normal(size=(n, N_METHODS)),
    "binary": lambda rng, n: rng.random((n, N_METHODS)) < 0.8,
    "ties": lambda rng, n: rng.integers(0, 3, (n, N_METHODS)) / 2,
    "skewed": lambda rng, n: (rng.gamma(4, size=(n, N_METHODS)) - 4) * (2 * ODD - 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("n", [6, 20, 70])
def test_of_twelve_equal_methods_hardly_any_are_told_apart(n: int, name: str) -> None:
    """Where 5 % are promised, more than 11 of 100 come in one of 200 such tests."""
    rng = np.random.default_rng(n)
    apart = sum(any(of != ANY for of in rank_methods(EQUAL[name](rng, n))) for _ in range(100))
    assert apart <= 11


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20])
def test_equal_methods_of_very_skewed_scores_are_told_apart_in_some_runs(n: int) -> None:
    rng = np.random.default_rng(n)
    runs = ((rng.exponential(size=(n, N_METHODS)) - 1) * (2 * ODD - 1) for _ in range(100))
    assert sum(any(of != ANY for of in rank_methods(scores)) for scores in runs) <= 16


def test_a_clear_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(20, N_METHODS)) + 3 * rng.normal(size=(20, 1))
    scores[:, 4] += 3
    assert rank_methods(scores)[4] == Place(1, 1)
    assert rank_methods(scores, "lower")[4] == Place(N_METHODS, N_METHODS)
    assert rank_methods(scores, n_scores=5)[4] == Place(1, 1)


def test_few_images_rank_nothing() -> None:
    """Of two images that agree, and of five, nothing follows; of six that all agree, p is 2 of 64."""
    for n in (0, 1, 2, 5):
        assert rank_methods(np.outer(np.ones(n), [0, 1.0])) == [Place(1, 2)] * 2
    assert p_of_pairs(np.outer(np.ones(6), [0, 1.0]))[0, 1] == 2 / 64
    assert rank_methods(np.outer(np.ones(6), [0, 1.0])) == [Place(2, 2), Place(1, 1)]


@pytest.mark.parametrize("n", [12, 70, 3000])
@pytest.mark.parametrize(("n_won", "n_lost"), [(5, 0), (6, 0), (9, 1), (8, 2)])
def test_two_methods_of_yes_and_no_are_told_apart_as_by_mcnemar(n: int, n_won: int, n_lost: int) -> None:
    scores = np.zeros((n, 2))
    scores[:n_won, 0] = scores[n_won : n_won + n_lost, 1] = 1
    exact = float(stats.binomtest(n_lost, n_won + n_lost).pvalue)
    assert p_of_pairs(scores)[0, 1] == pytest.approx(exact, abs=4 * math.sqrt(exact / 4000) * (n > 14) + 1e-12)
    assert (rank_methods(scores)[0] == Place(1, 1)) is (exact <= 0.05)


def test_what_differs_by_roundings_is_equal() -> None:
    first = np.random.default_rng(0).random(50)
    scores = np.column_stack([first, first + 1e-8, first + 0.1])
    assert rank_methods(scores) == [Place(2, 3), Place(2, 3), Place(1, 1)]


def test_p_is_multiplied_by_the_number_of_scores_and_is_seeded() -> None:
    scores = np.random.default_rng(0).normal([0, 0.3, 0.6], size=(30, 3))
    one, five = p_of_pairs(scores), p_of_pairs(scores, 5)
    np.testing.assert_allclose(five, np.minimum(1, 5 * one))
    np.testing.assert_array_equal(one, p_of_pairs(scores))
    assert not np.array_equal(one, p_of_pairs(scores, seed=1))
    np.testing.assert_array_equal(one, p_of_pairs(np.vstack([scores, [np.nan, 1, 2]])))


def test_many_images() -> None:
    """50,000 take the memory of 2,000, and are as many as they are."""
    scores = np.random.default_rng(0).normal(size=(50_000, N_METHODS))
    scores[:, 0] += 0.05
    assert rank_methods(scores)[0] == Place(1, 1)
    assert rank_methods(scores[:2000])[0] != Place(1, 1)


def test_wrong_tables() -> None:
    with pytest.raises(InputError, match=r"\(n_images, n_methods\), got \(3,\)"):
        rank_methods([1, 2, 3])
    with pytest.raises(InputError, match="higher or lower, got 'more'"):
        rank_methods(np.zeros((9, 2)), "more")


def test_means_of_units() -> None:
    values = np.array([1.0, 0.0, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(means_of_units(values, np.array([1, 1, 0, 0, 2]), 4), [0.5, 0.5, np.nan, np.nan])
