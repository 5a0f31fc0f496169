from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata, spearmanr

from lightning_modules import InputError
from lightning_modules.metrics import Ranking, rank_correlation, structural_similarity, top_overlap


def test_rank_correlation_is_scipys() -> None:
    a = torch.rand(4, 1, 9, 7)
    b = a + 0.3 * torch.randn(4, 1, 9, 7)
    # Ties, as Grad-CAM has them.
    a[1:3] = a[1:3].mul(4).round()
    b[2] = (b[2] - 0.6).clamp_min(0)
    ours = rank_correlation(a, b)
    expected = [
        spearmanr(x.clamp_min(0).flatten().numpy(), y.clamp_min(0).flatten().numpy()).statistic for x, y in zip(a, b)
    ]
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_ranking_made_once_ranks_as_scipy_does(dtype: torch.dtype) -> None:
    maps = torch.rand(3, 1, 16, 16, dtype=dtype)
    maps[1], maps[2] = maps[1].mul(3).round(), maps[2].where(maps[2] > 0.7, -0.0)
    ranking = Ranking(maps)
    expected = rankdata(maps.clamp_min(0).flatten(1).numpy(), axis=1)
    np.testing.assert_array_equal(ranking.ranks, expected - expected.mean(1, keepdims=True))
    np.testing.assert_array_equal(ranking.ordered, ranking.ranks.sort(1).values)
    other = torch.rand(3, 1, 16, 16, dtype=dtype)
    for score in (rank_correlation, top_overlap):
        assert torch.equal(score(ranking, Ranking(other)), score(maps, other))
        assert torch.equal(score(ranking, other), score(maps, Ranking(other)))


def test_the_overlap_is_the_smaller_part_of_each_pixel() -> None:
    """Against a sum over pixels, with ties at the thresholds of both maps."""
    a, b = torch.rand(2, 5, 1, 9, 9, generator=torch.Generator().manual_seed(0)).mul(6).round()
    for k in (1, 12, 40, 81):
        expected = []
        for pair in zip(a, b):
            parts = []
            for of in pair:
                flat = of.flatten()
                least = flat.sort().values[-k]
                part = (k - (flat > least).sum()) / (flat == least).sum()
                parts.append((flat > least) + part * (flat == least))
            expected.append(float(torch.minimum(*parts).sum() / k))
        assert top_overlap(a, b, k / 81).tolist() == pytest.approx(expected, rel=1e-6)


def test_maps_of_three_channels_are_compared_by_their_magnitude() -> None:
    a = torch.randn(2, 3, 5, 5)
    b = a.abs().sum(1, keepdim=True)
    torch.testing.assert_close(rank_correlation(a, b), torch.ones(2).double())
    torch.testing.assert_close(rank_correlation(a, 1 / b), -torch.ones(2).double())
    torch.testing.assert_close(top_overlap(a, b), torch.ones(2).double())


def test_overlap_without_ties_counts_common_pixels() -> None:
    a, b = torch.rand(2, 6, 1, 20, 20)
    ours = top_overlap(a, b, share=0.15)
    for i in range(6):
        tops = [set(x[i].flatten().argsort(descending=True)[:60].tolist()) for x in (a, b)]
        assert float(ours[i]) == pytest.approx(len(tops[0] & tops[1]) / 60)


def test_overlap_with_ties_by_hand() -> None:
    # Of ten pixels the top 30 % are three: 9 and 8, and a quarter of each of the four ones.
    a = torch.tensor([9.0, 8, 1, 1, 1, 1, 0, 0, 0, 0]).view(1, 1, 2, 5)
    b = torch.tensor([9.0, 0, 8, 7, 0, 0, 0, 0, 0, 0]).view(1, 1, 2, 5)
    assert float(top_overlap(a, a, 0.3)) == pytest.approx(1)
    assert float(top_overlap(a, b, 0.3)) == pytest.approx((1 + 0.25 + 0.25) / 3)


def test_same_map_and_degenerate_maps() -> None:
    maps = torch.rand(4, 1, 8, 8)
    maps[1], maps[2], maps[3, 0, 0, 0] = 0, 0.5, torch.nan
    for score in (rank_correlation(maps, maps), top_overlap(maps, maps)):
        assert score[0] == pytest.approx(1)
        assert score[1:].isnan().all()
    # Also where only one of the two is empty.
    assert rank_correlation(maps[:1], maps[1:2]).isnan().all()
    assert top_overlap(maps[:1], maps[1:2]).isnan().all()


def test_bad_input() -> None:
    maps = torch.rand(1, 1, 4, 4)
    with pytest.raises(InputError, match=r"share must lie in \(0, 1\], got 15"):
        top_overlap(maps, maps, share=15)
    with pytest.raises(InputError, match="of one size"):
        rank_correlation(maps, maps[..., :2])


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Window by window, each within the map, by numpy's weighted means and covariances."""
    a, b = a / a.max(), b / b.max()
    sides = [min(11, side if side % 2 else side - 1) for side in a.shape]
    y, x = (np.exp(-((np.arange(side) - side // 2) ** 2) / (2 * 1.5**2)) for side in sides)
    weights = np.outer(y, x)
    similarities = []
    for i in range(a.shape[0] - sides[0] + 1):
        for j in range(a.shape[1] - sides[1] + 1):
            window = np.s_[i : i + sides[0], j : j + sides[1]]
            means = [np.average(of[window], weights=weights) for of in (a, b)]
            covariance = np.cov(a[window].ravel(), b[window].ravel(), aweights=weights.ravel(), bias=True)
            similarities.append(
                ((2 * means[0] * means[1] + 0.01**2) * (2 * covariance[0, 1] + 0.03**2))
                / ((means[0] ** 2 + means[1] ** 2 + 0.01**2) * (covariance[0, 0] + covariance[1, 1] + 0.03**2))
            )
    return float(np.mean(similarities))


@pytest.mark.parametrize("shape", [(16, 14), (11, 20), (8, 5), (2, 3), (1, 4)])
def test_structural_similarity_is_of_windows_within_the_map(shape: tuple[int, int]) -> None:
    a = torch.rand(2, 1, *shape, dtype=torch.float64)
    b = a + torch.rand(2, 1, *shape, dtype=torch.float64)
    expected = [slow_ssim(x[0].numpy(), y[0].numpy()) for x, y in zip(a, b)]
    np.testing.assert_allclose(structural_similarity(a, b), expected, rtol=1e-9)


def test_structural_similarity_of_the_same_and_of_other_maps() -> None:
    maps = torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(structural_similarity(maps, 7 * maps), torch.ones(3))
    assert structural_similarity(maps, maps.flip(3)).max() < 0.3


@pytest.mark.parametrize("value", [0.0, 2.0, torch.nan, torch.inf])
def test_structural_similarity_of_maps_that_show_nothing(value: float) -> None:
    maps = torch.rand(2, 1, 32, 32)
    nothing = maps.clone()
    nothing[1] = value
    assert structural_similarity(maps, nothing).isnan().tolist() == [False, True]
