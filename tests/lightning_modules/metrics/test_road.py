from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADLeastRelevantFirst, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor

from lightning_modules import GradCAM, InputError
from lightning_modules.metrics import ROAD, pixel_order
from lightning_modules.metrics.road import removed
from tests.lightning_modules.metrics.small import KEYS, small_pass
from tests.references import noise_of_keys

BATCH: dict = {}
PERCENTILES = (15, 50, 90)


def test_against_pytorch_grad_cam() -> None:
    """Of maps without ties; it has the percent of the pixels that stay, and rounds to float32."""
    seen = small_pass()
    maps = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    added = 0.01 * noise_of_keys(KEYS, 4, 2 * len(PERCENTILES), seen.images, "normal")
    peers = {"road_most": (ROADMostRelevantFirst, False, 0), "road_least": (ROADLeastRelevantFirst, True, 1)}
    expected: dict[str, Any] = {}
    for name, (peer, is_least, first) in peers.items():
        changes = []
        for k, percentile in enumerate(PERCENTILES):
            order = maps if is_least else -maps
            n = removed(256, percentile)
            holes = order.flatten(1).argsort(1).argsort(1) < n
            missing: Iterator[Tensor] = iter(
                [noise[:, hole] / 0.01 for noise, hole in zip(added[2 * k + first].flatten(2), holes)]
            )
            with mock.patch("torch.randn_like", side_effect=lambda like, rest=missing: next(rest)):
                changes.append(
                    peer(100 - percentile)(
                        seen.images.detach(),
                        maps[:, 0].numpy(),
                        [ClassifierOutputSoftmaxTarget(int(k)) for k in seen.target],
                        seen.network,
                    )
                )
        expected[name] = np.mean(changes, axis=0)
    expected["road"] = (expected["road_least"] - expected["road_most"]) / 2
    metric = ROAD(PERCENTILES, max_batch=5, seed=4)
    scores = metric.score(maps, seen, BATCH, GradCAM())
    assert scores.pop("road_tied_pixels").tolist() == [0, 0]
    for name, found in scores.items():
        np.testing.assert_allclose(found, expected[name], atol=1e-6, err_msg=name)
        assert found.abs().min() > 1e-4


def test_exactly_the_share_is_removed_where_pixels_are_equal() -> None:
    """Half of the map is 0. Half of that, by the draws of the image, is the least important quarter."""
    seen = small_pass()
    maps = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    maps[:, :, 8:] = torch.rand(2, 1, 8, 16).double() + 1
    tied = ROAD([25.0], sigma=0).score(maps, seen, BATCH, GradCAM())
    assert tied.pop("road_tied_pixels").tolist() == [0.5, 0.5]
    place, _, _ = pixel_order(maps, seen, GradCAM(), None, seed=0)
    maps[:, 0] = maps[:, 0].where(place >= 192, maps[:, 0] + 0.5)  # now no such pixel ties with one that stays
    found = ROAD([25.0], sigma=0).score(maps, seen, BATCH, GradCAM())
    torch.testing.assert_close({name: found[name] for name in tied}, tied)
    other = ROAD([25.0], sigma=0, seed=1).score(maps - maps, seen, BATCH, GradCAM())
    assert all(score.isnan().all() for score in other.values())


@pytest.mark.parametrize("percentiles", [[], [0], [50, 100], [torch.nan]])
def test_bad_percentiles(percentiles: list[float]) -> None:
    with pytest.raises(InputError, match="percentiles must lie above 0 and below 100, got"):
        ROAD(percentiles)


def test_bad_options() -> None:
    with pytest.raises(InputError, match="sigma must be at least 0, got -1"):
        ROAD(sigma=-1)
    with pytest.raises(InputError, match="max_batch must be at least 1, got 0"):
        ROAD(max_batch=0)
