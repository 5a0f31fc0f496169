from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from lightning_modules import Network
from lightning_modules.networks.built_in.vgg16 import VGG16
from lightning_modules.strategies.finding import balanced
from lightning_modules.strategies.vectors import GRID, features, unit_masses


def test_maps_have_unit_mass_on_a_small_grid() -> None:
    maps = torch.rand(3, 3, 56, 28)
    found = unit_masses(maps * torch.tensor([1.0, 1e-30, -1e30]).view(3, 1, 1, 1))
    strength = maps.double().sum(1)
    expected = strength.view(3, GRID, 4, GRID, 2).sum((2, 4)) / strength.sum((1, 2), keepdim=True)
    torch.testing.assert_close(found, expected.float())


def test_maps_that_show_nothing_are_nan() -> None:
    maps = torch.rand(4, 1, 7, 7)
    maps[0], maps[1], maps[2, 0, 3, 3] = 0, -1, torch.inf
    assert unit_masses(maps).isnan().all((1, 2)).tolist() == [True, True, True, False]


def test_features_are_what_the_head_sees(shapes_network: Network[VGG16]) -> None:
    images = torch.rand(3, 3, 64, 64)
    seen: list[torch.Tensor] = []
    head = shapes_network.module.classifier[-1]
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        shapes_network(images)
    handle.remove()
    rows = pd.DataFrame({"path": ["a", "b", "c"]})

    def look(_: pd.DataFrame, compute: object) -> dict[str, np.ndarray]:
        found = compute({"image": images}, torch.zeros(3))  # type: ignore[operator]
        return {"a": found[0].numpy(), "c": found[2].numpy()}

    found = features(shapes_network, look, rows)
    expected = seen[0] / seen[0].norm(dim=1, keepdim=True)
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-5)
    assert np.isnan(found[1]).all()


def test_a_sample_is_balanced() -> None:
    classes = np.repeat([3, 5, 9], [100, 10, 2])
    chosen = balanced(classes, 20, seed=0)
    assert np.bincount(classes[chosen])[[3, 5, 9]].tolist() == [9, 9, 2]
    assert chosen.tolist() == sorted(set(chosen))
    assert balanced(classes, 20, seed=0).tolist() == chosen.tolist() != balanced(classes, 20, seed=1).tolist()
    assert len(balanced(classes, 1000, seed=0)) == 112
