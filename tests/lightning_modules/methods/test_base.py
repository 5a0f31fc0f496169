"""What holds for every method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import ShapesDataModule
from datamodules.batch import boxes_of, with_pixels
from lightning_modules import (
    RISE,
    AttributionMethod,
    DeepLift,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputError,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Network,
    Occlusion,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    VarGrad,
    XGradCAM,
    explain,
)
from lightning_modules.methods.maps import magnitude
from tests.references import full_pass, relative_error

METHODS = [
    GradCAM(),
    GuidedBackprop(),
    GuidedGradCAM(),
    Saliency(),
    SmoothGrad(n_samples=3),
    SmoothGrad(n_samples=3, clip=True, statistic="squared"),
    GradCAMPlusPlus(),
    XGradCAM(),
    HiResCAM(),
    LayerCAM(["features.22", "features.29"]),
    InputXGradient(),
    SmoothGrad(n_samples=3, method=GuidedBackprop()),
    VarGrad(n_samples=3),
    IntegratedGradients(n_steps=3, baseline="noise"),
    ScoreCAM("features.1"),
    Occlusion(window=48),
    RISE(n_masks=10),
    DeepLift(),
]


def maps_of(method: AttributionMethod, network: Network, images: Tensor, **options: Any) -> Tensor:
    (maps,) = explain(network, images, [method], **options).values()
    return maps


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_map_does_not_depend_on_the_batch(shapes_network: Network, method: AttributionMethod) -> None:
    images = torch.rand(3, 3, 112, 112)
    keys = [f"image {k}" for k in range(3)]
    together = maps_of(method, shapes_network, images, keys=keys)
    order = [2, 0, 1]
    reordered = maps_of(method, shapes_network, images[order], keys=[keys[k] for k in order])
    for position, k in enumerate(order):
        alone = maps_of(method, shapes_network, images[k : k + 1], keys=keys[k : k + 1])
        assert relative_error(alone[0], together[k]) < 1e-5
        assert relative_error(reordered[position], together[k]) < 1e-5


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_no_images_have_no_maps(shapes_network: Network, method: AttributionMethod) -> None:
    none = maps_of(method, shapes_network, torch.zeros(0, 3, 112, 112), target=0)
    assert none.shape == maps_of(method, shapes_network, torch.rand(1, 3, 112, 112), target=0)[:0].shape


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_maps_of_images_differ_and_are_not_black(shapes_network: Network, method: AttributionMethod) -> None:
    maps = maps_of(method, shapes_network, torch.rand(2, 3, 112, 112), target=0)
    assert maps.shape[2:] == (112, 112)
    assert maps.isfinite().all()
    assert relative_error(maps[0], maps[1]) > 0.01


def test_names_show_what_is_not_default() -> None:
    assert [repr(method) for method in METHODS[:5]] == [
        "GradCAM",
        "GuidedBackprop",
        "GuidedGradCAM",
        "Saliency",
        "SmoothGrad(n_samples=3)",
    ]
    assert repr(GradCAM("features.22")) == "GradCAM(layer='features.22')"


def test_grad_cam_needs_a_grid(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.rand(1, 3, 112, 112), layers=["classifier.0"])
    with pytest.raises(InputError, match=r"classifier\.0.*\(1, 256\)"):
        GradCAM("classifier.0")(forward_pass)


@pytest.mark.slow
def test_grad_cam_tells_two_objects_apart(shapes: Path, shapes_network: Network) -> None:
    """Each map's maximum lies in the box of its own class; Guided Backpropagation is known not to do that."""
    data = ShapesDataModule(str(shapes), 64, 80, 60, split="pairs", num_workers=0)
    data.setup("test")
    hits: dict[str, list[bool]] = {"GradCAM": [], "GuidedBackprop": []}
    seen = {}
    for batch in map(with_pixels, data.test_dataloader()):
        forward_pass = full_pass(shapes_network, batch["image"], batch["label"])
        for method in (GradCAM(), GuidedBackprop()):
            strength = magnitude(method(forward_pass))
            for i in range(len(batch["path"])):
                boxes, labels = boxes_of(batch, i)
                assert len(boxes) == 2
                left, top, right, bottom = boxes[labels == batch["label"][i]][0].tolist()
                y, x = divmod(int(strength[i].argmax()), 112)
                hits[repr(method)].append(left - 1 <= x <= right and top - 1 <= y <= bottom)
                if repr(method) == "GradCAM":
                    seen[batch["path"][i]] = strength[i] / strength[i].sum()
    assert len(hits["GradCAM"]) == 120
    assert np.mean(hits["GradCAM"]) >= 0.9
    # The same picture is filed under both of its classes: the maps must not be the same.
    by_stem: dict[str, list[Tensor]] = {}
    for path, strength in seen.items():
        by_stem.setdefault(Path(path).stem, []).append(strength)
    overlap = [float(torch.minimum(*pair).sum()) for pair in by_stem.values()]
    assert len(overlap) == 60
    assert np.mean(overlap) < 0.5
    assert np.mean(hits["GuidedBackprop"]) < np.mean(hits["GradCAM"])
