from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules import Network
from lightning_modules.networks.built_in.vgg16 import VGG16
from lightning_modules.strategies.suspicion import Region, common_region, with_and_without


def maps_at(rows: slice, columns: slice, n: int = 10, side: int = 14) -> np.ndarray:
    """Maps of which nine tenths lie in a rectangle."""
    maps = np.full((n, side, side), 0.1)
    maps[:, rows, columns] += 0.9 * side**2 / maps[0, rows, columns].size
    return maps / maps.sum((1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("rows", "columns", "oddity"),
    [
        (slice(2), slice(2), "lies at the border"),
        (slice(12, 14), slice(3, 9), "lies at the border"),
        (slice(5, 8), slice(6, 9), "is small and the same in all images"),
        (slice(3, 11), slice(3, 11), ""),
    ],
)
def test_where_a_watermark_may_lie(rows: slice, columns: slice, oddity: str) -> None:
    region = common_region(maps_at(rows, columns))
    assert region.oddity == oddity
    outside = np.ones((14, 14), bool)
    outside[rows, columns] = False
    assert not region.mask[outside].any()


def test_a_region_that_some_images_do_not_share_is_not_odd() -> None:
    corner, elsewhere = maps_at(slice(2), slice(2), n=8), maps_at(slice(6, 8), slice(6, 8), n=2)
    assert common_region(corner).oddity
    assert not common_region(np.concatenate([corner, elsewhere])).oddity


def region(**known: float) -> Region:
    return Region(np.ones((1, 1), bool), 0.05, 1.0, 0.9)._replace(**known)


def test_a_cluster_is_suspicious_if_the_class_falls_without_its_region() -> None:
    draws = np.random.default_rng(0)
    before = draws.uniform(0.8, 1, 20)
    fallen = region().measured(np.column_stack([before, before / 2]))
    assert fallen.drop == pytest.approx(0.5)
    assert fallen.n_tried == 20
    assert fallen.reason == "without its region, which lies at the border, 50% of the probability is lost"
    assert not region().measured(np.column_stack([before, before * 0.95])).reason  # too little
    noisy = np.column_stack([before[:4], before[:4] * [0.2, 1, 1.05, 1.1]])
    assert region().measured(noisy).drop > 0.1
    assert not region().measured(noisy).reason  # of one image alone
    assert not region().reason  # never measured


def test_probabilities_without_a_region(shapes_network: Network[VGG16]) -> None:
    """As by pixels that are replaced by hand, with the positions beside the region."""
    images, target = torch.rand(2, 3, 64, 64), torch.tensor([3, 5])
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 0, 3] = masks[1, 5:, 7] = True
    replaced = images.clone()
    replaced[0, :, :16, 16:40] = replaced[1, :, 32:, 48:] = shapes_network.mean_pixel
    with torch.no_grad():
        expected = [shapes_network(each).softmax(1)[[0, 1], target] for each in (images, replaced)]
    found = with_and_without(shapes_network, images, target, masks)
    torch.testing.assert_close(found, torch.stack(expected, 1))
    assert (found[:, 0] != found[:, 1]).all()
