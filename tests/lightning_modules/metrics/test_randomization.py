from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from datamodules import ShapesDataModule
from lightning_modules import AttributionMethod, ForwardPass, GradCAM, GuidedBackprop, InputError, Network, Saliency
from lightning_modules.metrics import WeightRandomization, cascade, structural_similarity, weighted_layers
from lightning_modules.metrics.randomization import FAILING_CORRELATION
from tests.references import full_pass

BATCH = {"boxes": [], "box_labels": []}


class EdgeDetector(AttributionMethod):
    """A method that looks at the image alone: the sanity check has to fail it."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        return images - images.roll(1, 3)


def test_order_is_from_the_output_down(shapes_network: Network) -> None:
    layers = weighted_layers(shapes_network)
    assert layers[:4] == ["classifier.6", "classifier.3", "classifier.0", "features.28"]
    assert layers[-1] == "features.0"
    assert len(layers) == 16


class TestCascade:
    def test_layers_are_randomized_one_after_the_other(self, shapes_network: Network) -> None:
        before = copy.deepcopy(shapes_network.state_dict())
        changed: set[str] = set()
        for name, random in cascade(shapes_network, ["classifier.6", "features.28"]):
            changed.add(name)
            for key, tensor in random.state_dict().items():
                same = torch.equal(tensor, before[key])
                assert same == (key.rpartition(".")[0] not in changed), key
        assert changed == {"classifier.6", "features.28"}
        for key, tensor in shapes_network.state_dict().items():
            assert torch.equal(tensor, before[key])

    def test_seed_decides(self, shapes_network: Network) -> None:
        first, again, other = (
            next(cascade(shapes_network, ["features.0"], seed))[1].state_dict()["features.0.weight"].clone()
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_under_inference_mode(self, shapes_network: Network) -> None:
        images = torch.rand(1, 3, 112, 112)
        with torch.inference_mode():
            for _, random in cascade(shapes_network, ["classifier.6"]):
                assert full_pass(random, images).input_gradient().isfinite().all()


class TestStructuralSimilarity:
    def test_same_scaled_and_different(self) -> None:
        maps = torch.rand(3, 1, 32, 32)
        torch.testing.assert_close(structural_similarity(maps, 7 * maps), torch.ones(3))
        assert structural_similarity(maps, maps.flip(3)).max() < 0.3

    @pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
    def test_maps_that_show_nothing(self, value: float) -> None:
        maps = torch.rand(2, 1, 32, 32)
        nothing = maps.clone()
        nothing[1] = value
        assert structural_similarity(maps, nothing).isnan().tolist() == [False, True]


class TestMetric:
    def test_tells_a_method_that_ignores_the_network(self, shapes_network: Network) -> None:
        forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
        metric = WeightRandomization(layers=["classifier.6", "features.28", "features.0"])
        scores = {}
        for method in (EdgeDetector(), Saliency()):
            scores[repr(method)] = metric.score(method(forward_pass), forward_pass, BATCH, method)
        ignoring, explaining = scores["EdgeDetector"], scores["Saliency"]
        assert ignoring["randomization_correlation_curve"].shape == (2, 3)
        torch.testing.assert_close(ignoring["randomization_correlation"], torch.ones(2, dtype=torch.float64))
        torch.testing.assert_close(ignoring["randomization_ssim"], torch.ones(2))
        assert explaining["randomization_correlation"].max() < 0.7
        torch.testing.assert_close(
            explaining["randomization_correlation"], explaining["randomization_correlation_curve"].mean(1)
        )

    @pytest.mark.slow
    def test_guided_backprop_fails_and_grad_cam_passes(self, shapes: Path, shapes_network: Network) -> None:
        """As the literature found."""
        data = ShapesDataModule(str(shapes), 64, 80, 60, batch_size=8, num_workers=0)
        data.setup("test")
        batch = next(iter(data.test_dataloader()))
        forward_pass = full_pass(shapes_network, batch["image"], batch["label"])
        metric = WeightRandomization()
        means = {}
        for method in (GradCAM(), GuidedBackprop()):
            scores = metric.score(method(forward_pass), forward_pass, batch, method)
            means[repr(method)] = float(scores["randomization_correlation"].nanmean())
        assert means["GuidedBackprop"] > FAILING_CORRELATION
        assert means["GradCAM"] < 0.3

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
