"""Each method against loops over a network small enough to differentiate by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules import (
    AttributionMethod,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    Network,
    Saliency,
)
from tests.references import TinyNet, bilinear, full_pass, tiny_grad_cam, tiny_gradient


class TestByHand:
    """A hand-weighted network whose maps are computed in loops."""

    @pytest.fixture(params=[True, False], ids=["inplace", "not inplace"])
    def net(self, request: pytest.FixtureRequest) -> TinyNet:
        return TinyNet(inplace=request.param)

    @pytest.fixture
    def images(self) -> Tensor:
        return torch.rand(3, 3, 4, 5, dtype=torch.float64)

    @pytest.mark.parametrize("target", [0, 1, 2])
    def test_grad_cam(self, net: TinyNet, images: Tensor, target: int) -> None:
        cam = GradCAM()(full_pass(net, images, target))
        expected = np.stack([tiny_grad_cam(net, image.numpy(), target) for image in images])
        np.testing.assert_allclose(cam[:, 0], expected, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize("target", [0, 1, 2])
    @pytest.mark.parametrize(("method", "guided"), [(Saliency(), False), (GuidedBackprop(), True)])
    def test_gradients(
        self, net: TinyNet, images: Tensor, target: int, method: AttributionMethod, guided: bool
    ) -> None:
        expected = np.stack([tiny_gradient(net, image.numpy(), target, guided) for image in images])
        np.testing.assert_allclose(method(full_pass(net, images, target)), expected, rtol=1e-12, atol=1e-15)

    def test_both_rules_from_one_pass_in_any_order(self, net: TinyNet, images: Tensor) -> None:
        first, second = full_pass(net, images, 0), full_pass(net, images, 0)
        true, guided = Saliency()(first), GuidedBackprop()(first)
        guided_first = GuidedBackprop()(second)
        assert not torch.equal(true, guided)
        assert torch.equal(guided, guided_first)
        assert torch.equal(true, Saliency()(second))

    def test_guided_grad_cam_is_the_product(self, net: TinyNet, images: Tensor) -> None:
        forward_pass = full_pass(net, images)
        product = GradCAM()(forward_pass) * GuidedBackprop()(forward_pass)
        assert torch.equal(GuidedGradCAM()(forward_pass), product)

    def test_activation_of_a_layer_before_an_inplace_relu(self, net: TinyNet, images: Tensor) -> None:
        """In place, the ReLU would overwrite the convolution's output that was kept."""
        forward_pass = full_pass(net, images, 0, layers=["features.0"])
        torch.testing.assert_close(forward_pass.activation("features.0"), net.features[0](images))
        assert (forward_pass.activation("features.0") < 0).any()


def test_cam_is_bilinear_from_the_grid(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.rand(1, 3, 112, 112))
    weights = forward_pass.layer_gradient().mean((2, 3), keepdim=True)
    cam = (weights * forward_pass.activation()).sum(1).relu()[0].numpy()
    assert cam.shape == (7, 7)
    np.testing.assert_allclose(GradCAM()(forward_pass)[0, 0], bilinear(cam, 112, 112), rtol=1e-4, atol=1e-7)
