from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules import ShapesDataModule
from datamodules.batch import with_pixels
from lightning_modules import (
    AttributionMethod,
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    InputError,
    Network,
    OtherImage,
    Saliency,
    load_network,
)
from lightning_modules.metrics import WeightRandomization, rank_correlation, structural_similarity
from lightning_modules.metrics.randomization import END, FIRST, SEEDS
from tests.lightning_modules.fragile import NETWORK, dim_images
from tests.references import full_pass

BATCH: dict = {}


class EdgeDetector(AttributionMethod):
    """A method that looks at the image alone: the sanity check has to fail it."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        return images - images.roll(1, 3)


class TestMetric:
    def test_tells_a_method_that_ignores_the_network(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        metric = WeightRandomization(layers=["classifier.6", "features.28", "features.0"])
        scores = {}
        for method in (EdgeDetector(), Saliency()):
            scores[repr(method)] = metric.score(method(forward_pass), forward_pass, BATCH, method)
        ignoring, explaining = scores["EdgeDetector"], scores["Saliency"]
        assert ignoring["randomization_correlation_curve"].shape == (2, 3)
        for kind in ("correlation", "ssim"):
            for step in ("", "_first", "_end"):
                torch.testing.assert_close(ignoring[f"randomization_{kind}{step}"].float(), torch.ones(2))
            curve = explaining[f"randomization_{kind}_curve"]
            torch.testing.assert_close(explaining[f"randomization_{kind}"], curve.mean(1))
            torch.testing.assert_close(explaining[f"randomization_{kind}_first"], curve[:, 0])
            torch.testing.assert_close(explaining[f"randomization_{kind}_end"], curve[:, 2])
        assert explaining["randomization_correlation"].max() < 0.7

    @pytest.mark.slow
    def test_guided_backprop_fails_and_grad_cam_passes(self, shapes: Path, shapes_network: Network) -> None:
        """As the literature found."""
        data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=8, num_workers=0)
        data.setup("test")
        batch = with_pixels(next(iter(data.test_dataloader())))
        forward_pass = full_pass(shapes_network, batch["image"], batch["label"])
        metric = WeightRandomization()
        means = {}
        for method in (GradCAM(), GuidedBackprop()):
            scores = metric.score(method(forward_pass), forward_pass, batch, method)
            means[repr(method)] = {name: float(scores[name].nanmean()) for name in metric.columns}
        guided, grad_cam = means["GuidedBackprop"], means["GradCAM"]
        # The mean over the steps hides that it hardly changes at first, and has changed in the end.
        assert guided[FIRST] > 0.9
        assert 0.5 < guided["randomization_correlation"] < 0.9
        assert guided[END] < 0.3
        assert grad_cam[FIRST] < guided[FIRST] - 0.3
        assert grad_cam["randomization_correlation"] < 0.3
        # Maps of different images look alike, above all where both are dark.
        assert guided["randomization_ssim_floor"] > 0.5
        assert guided["randomization_correlation_floor"] < 0.5

    def test_the_floor_is_between_maps_of_an_image_and_of_another(self, shapes_network: Network) -> None:
        images, method = torch.rand(3, 3, 112, 112), Saliency()
        forward_pass = full_pass(shapes_network, images, 1)
        maps, others = method(forward_pass), OtherImage(method)(forward_pass)
        scores = WeightRandomization(["classifier.6"]).score(maps, forward_pass, BATCH, method)
        floor = rank_correlation(maps, others).float()
        torch.testing.assert_close(scores["randomization_correlation_floor"], floor)
        torch.testing.assert_close(scores["randomization_ssim_floor"], structural_similarity(maps, others))

    def test_does_not_depend_on_the_batch(self, shapes_network: Network) -> None:
        images = torch.rand(2, 3, 112, 112)
        metric, method = WeightRandomization(layers=["classifier.6", "features.28"]), GradCAM()
        together = full_pass(shapes_network, images, 1)
        expected = metric.score(method(together), together, BATCH, method)
        for k in range(2):
            alone = full_pass(shapes_network, images[k : k + 1], 1)
            found = metric.score(method(alone), alone, BATCH, method)
            for name in expected:
                torch.testing.assert_close(found[name][0], expected[name][k], rtol=1e-3, atol=1e-4, equal_nan=True)

    def test_unknown_layer(self, shapes_network: Network) -> None:
        with pytest.raises(InputError, match=r"cannot randomize 'features\.1'; it can: classifier\.6, classifier\.3"):
            WeightRandomization(["features.1"]).layers_of(shapes_network)

    @pytest.mark.filterwarnings("ignore:Guided Backpropagation is a rule for ReLUs")
    def test_several_seeds(self, small: ForwardPass) -> None:
        method = Saliency()
        maps = method(small)
        alone = [WeightRandomization(seed=seed).score(maps, small, BATCH, method) for seed in (3, 4)]
        metric = WeightRandomization(seed=3, n_seeds=2)
        assert metric.curves == (*WeightRandomization.curves, *SEEDS.values())
        assert not set(SEEDS.values()) & set(WeightRandomization(seed=3).curves)
        together = metric.score(maps, small, BATCH, method)
        assert set(together) == {*metric.columns, *metric.curves}
        for name in alone[0]:
            torch.testing.assert_close(together[name], torch.stack([scores[name] for scores in alone]).nanmean(0))
        for name, of_seeds in SEEDS.items():
            of_each = torch.stack([scores[name] for scores in alone], 1)
            torch.testing.assert_close(together[of_seeds], of_each)
            assert (of_each[:, 0] != of_each[:, 1]).all()
        with pytest.raises(InputError, match="n_seeds must be at least 1, got 0"):
            WeightRandomization(n_seeds=0)

    @pytest.mark.filterwarnings("ignore:Guided Backpropagation is a rule for ReLUs")
    def test_double_precision_draws_the_same(
        self, small: ForwardPass, double_by_default: Callable[[], AbstractContextManager[None]]
    ) -> None:
        metric, method = WeightRandomization(), Saliency()
        expected = metric.score(method(small), small, BATCH, method)
        network, images = load_network(NETWORK, "random").double(), small.images.detach().double()
        double = full_pass(network, images, small.target, keys=small.keys)
        with double_by_default():
            found = metric.score(method(double), double, BATCH, method)
        for name in expected:
            torch.testing.assert_close(found[name].double(), expected[name].double(), rtol=1e-3, atol=1e-3)


@pytest.fixture
def small() -> ForwardPass:
    return full_pass(load_network(NETWORK, "random"), dim_images(2), 1)
