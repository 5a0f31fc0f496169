from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from lightning_modules.strategies.clusters import FEWEST, MOST_CLUSTERED, find_clusters


def blobs(sizes: list[int], d: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal vectors round far middles, in an order of no meaning; and whose they are."""
    draws = np.random.default_rng(seed)
    whose = draws.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return (draws.normal(size=(len(whose), d)) + 9 * np.eye(len(sizes), d)[whose]).astype(np.float32), whose


@pytest.mark.parametrize("sizes", [[60], [40, 20], [40, 30, 20], [8, 8]])
def test_as_many_clusters_as_there_are(sizes: list[int]) -> None:
    vectors, whose = blobs(sizes)
    found = find_clusters(vectors)
    assert adjusted_rand_score(whose, found.number) == 1
    assert np.bincount(found.number).tolist() == sizes
    assert (found.gap > 0.1) == (len(sizes) > 1)
    middles = [vectors[found.number == k].mean(0) for k in range(len(sizes))]
    np.testing.assert_allclose(found.middles, middles, rtol=1e-5)


@pytest.mark.slow
def test_noise_has_one_cluster() -> None:
    """But for a few of the smallest samples, which may fall apart by chance."""
    noise = {
        (n, d): [np.random.default_rng(k).normal(size=(n, d)) for k in range(20)]
        for n in (16, 50, 200)
        for d in (2, 20)
    }
    apart = {size: sum(find_clusters(vectors).gap > 0 for vectors in each) for size, each in noise.items()}
    assert apart.pop((16, 2)) <= 2
    assert not any(apart.values())


def test_a_few_odd_images_are_no_cluster() -> None:
    vectors, whose = blobs([30, FEWEST - 1])
    found = find_clusters(vectors)
    assert (found.number == 0).all()
    assert (found.gap, len(found.middles)) == (0, 1)
    # With two true clusters, they go to the nearer one.
    vectors, whose = blobs([30, 25, 4])
    vectors[whose == 2, 1] += 4
    assert find_clusters(vectors).number.tolist() == [min(k, 1) for k in whose]


@pytest.mark.parametrize("n", [1, 2, 15])
def test_too_few_images_for_two_clusters(n: int) -> None:
    found = find_clusters(blobs([n - n // 2, n // 2])[0])
    assert found.number.tolist() == [0] * n
    assert (found.gap, found.places.shape) == (0, (n, 2))


def test_of_very_many_images_the_rest_go_to_the_nearest_middle() -> None:
    vectors, whose = blobs([MOST_CLUSTERED, 600], d=4)
    found = find_clusters(vectors, seed=3)
    assert found.number.tolist() == whose.tolist()
    again = find_clusters(vectors, seed=3)
    np.testing.assert_array_equal(again.middles, found.middles)
    assert again.gap == found.gap
