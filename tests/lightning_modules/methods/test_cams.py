"""Class activation maps against pytorch-grad-cam, in float64, and against numbers by hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lightning_modules import (
    AttributionMethod,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputError,
    LayerCAM,
    Network,
    ScoreCAM,
    XGradCAM,
    as_network,
    explain,
)
from lightning_modules.methods.cam import ClassActivationMap
from tests.references import PEER_CAMS, TinyNet, peer_grid, relative_error

LAYERS = ("features.12", "features.7", "features.4.expand3x3")


@pytest.fixture(scope="module")
def network() -> Network:
    """SqueezeNet with random weights, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return as_network(models.squeezenet1_1(num_classes=10).eval().double(), input_size=96)


def images(seed: int = 1) -> Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("cam", PEER_CAMS, ids=lambda cam: cam.__name__)
@pytest.mark.parametrize("layer", LAYERS)
def test_equals_pytorch_grad_cam(network: Network, cam: type[ClassActivationMap], layer: str) -> None:
    maps = explain(network, images(), [cam(layer)], torch.tensor([3, 7]))
    forward_pass = maps.forward_pass
    grid = peer_grid(cam, forward_pass.activation(layer), forward_pass.layer_gradient(layer))
    expected = F.interpolate(grid.relu(), (96, 96), mode="bilinear", align_corners=False)
    assert expected.amax((1, 2, 3)).min() > 0
    assert relative_error(maps[repr(cam(layer))], expected) <= 1e-9


def maps_of(cam: type[ClassActivationMap], activation: Sequence[float], gradient: Sequence[float]) -> list[float]:
    """The map of one channel on a row of positions, before negative values are cut off."""
    a, g = (torch.tensor(values).view(1, 1, 1, -1) for values in (activation, gradient))
    return cam.weighted(a, g).sum(1).flatten().tolist()


def test_weights_by_hand() -> None:
    activation, gradient = [1.0, 3.0], [0.5, -1.0]
    assert maps_of(GradCAM, activation, gradient) == [-0.25, -0.75]
    # alpha = 1 / (2 + 0.5 * 4) where the gradient is positive; so the weight is a quarter of a half.
    assert maps_of(GradCAMPlusPlus, activation, gradient) == [0.125, 0.375]
    assert maps_of(XGradCAM, activation, gradient) == [0.25 * 0.5 - 0.75, 3 * (0.25 * 0.5 - 0.75)]
    assert maps_of(HiResCAM, activation, gradient) == [0.5, -3.0]
    assert maps_of(LayerCAM, activation, gradient) == [0.5, 0.0]


def test_channels_without_a_sum_give_numbers() -> None:
    assert maps_of(XGradCAM, [0.0, 0.0], [1.0, 1.0]) == [0, 0]
    assert maps_of(XGradCAM, [-1.0, 1.0], [1.0, 2.0]) == [0, 0]
    assert maps_of(GradCAMPlusPlus, [-1.0, -1.0], [1.0, 0.0]) == [-1, -1]  # the denominator is 0


class TestSeveralLayers:
    def test_are_fused_by_the_greatest_value(self, network: Network) -> None:
        maps = explain(network, images(), [LayerCAM(list(LAYERS)), *map(LayerCAM, LAYERS)], 3)
        fused, *_ = maps.values()
        forward_pass, expected = maps.forward_pass, torch.zeros(2, 1, 96, 96).double()
        for i in range(2):
            for layer in LAYERS:
                a, g = forward_pass.activation(layer)[i], forward_pass.layer_gradient(layer)[i]
                cam = (a * g.clamp_min(0)).sum(0).clamp_min(0)
                scaled = torch.tanh(2 * cam / cam.max())[None, None]
                large = F.interpolate(scaled, (96, 96), mode="bilinear", align_corners=False)
                expected[i] = torch.maximum(expected[i], large[0])
        assert relative_error(fused, expected) < 1e-12

    def test_one_is_as_it_is(self, network: Network) -> None:
        one, several = explain(network, images(), [LayerCAM("features.7"), LayerCAM(["features.7"])], 3).values()
        assert torch.equal(one, several)

    def test_a_black_map_among_them(self) -> None:
        """Of the target whose weights are all negative, no map shows anything, nor is it NaN."""
        net = TinyNet()
        with torch.no_grad():
            net.readout.weight.neg_().clamp_(max=-1)
        (fused,) = explain(
            as_network(net, input_size=8), images(), [LayerCAM(["features.0", "features.1"])], 0
        ).values()
        assert not fused.any()

    def test_one_backward_pass_serves_all(self, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        calls, grad = [], torch.autograd.grad

        def counting(*args: Any, **options: Any) -> Any:
            calls.append(args)
            return grad(*args, **options)

        monkeypatch.setattr(torch.autograd, "grad", counting)
        cams: list[AttributionMethod] = [GradCAM("features.7"), LayerCAM(LAYERS), XGradCAM(), HiResCAM()]
        together = explain(network, images(), cams, 3)
        assert len(calls) == 1
        explain(network, images(), [*cams, GuidedBackprop(), GuidedGradCAM()], 3)
        assert len(calls) == 3
        for cam in cams:
            assert torch.equal(explain(network, images(), [cam], 3)[repr(cam)], together[repr(cam)])

    def test_names(self) -> None:
        assert repr(LayerCAM(("a", "b"))) == "LayerCAM(layers=['a', 'b'])"
        with pytest.raises(InputError, match=r"LayerCAM\.layers is empty"):
            LayerCAM([])

    def test_a_layer_that_there_is_not(self, network: Network) -> None:
        with pytest.raises(InputError, match=r"no layer 'features.77'.*class_path: LayerCAM, init_args: \{layers: "):
            LayerCAM(["features.7", "features.77"]).needs(network)


def test_a_layer_that_the_logits_do_not_depend_on_is_refused() -> None:
    class TwoWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            return self.used(x).relu().mean((2, 3))

    two_ways = as_network(TwoWays().eval(), input_size=16)
    assert explain(two_ways, torch.rand(1, 3, 16, 16), [LayerCAM("used")], 0)["LayerCAM(layers='used')"].any()
    with pytest.raises(InputError, match="LayerCAM of 'unused' would be zero everywhere"):
        explain(two_ways, torch.rand(1, 3, 16, 16), [LayerCAM("unused")], 0)


@pytest.mark.parametrize("cam", [GradCAM, GradCAMPlusPlus, XGradCAM, HiResCAM, LayerCAM, ScoreCAM, GuidedGradCAM])
def test_what_is_not_rectified_keeps_its_sign(cam: Any) -> None:
    """Rectified, it is the map of before."""
    network, images = as_network(TinyNet(), input_size=4), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    options = {} if cam in (GuidedGradCAM, ScoreCAM) else {"sign": "signed"}
    signed = cam(rectify=False)
    assert repr(signed) == f"{cam.__name__}(rectify=False)"
    assert all(getattr(signed, name) == value for name, value in options.items())
    for target in range(3):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            maps = explain(network, images, [cam(), signed], target)
        rectified, whole = maps.values()
        if cam is GuidedGradCAM:
            assert torch.equal(rectified[whole == rectified], whole[whole == rectified])
        else:
            torch.testing.assert_close(rectified, whole.relu())


def test_a_black_map_is_told_with_the_option() -> None:
    net = TinyNet()
    with torch.no_grad():
        net.readout.weight[0] = -net.readout.weight[0].abs()
    network, images = as_network(net, input_size=4), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    with pytest.warns(UserWarning, match=r"2 of 2 maps of GradCAM are black.* GradCAM\(rectify=False\) keeps"):
        black = explain(network, images, [GradCAM()], 0)["GradCAM"]
    assert not black.any()
    assert (explain(network, images, [GradCAM(rectify=False)], 0)["GradCAM(rectify=False)"] < 0).any()
    with pytest.raises(InputError, match="of several layers, rectify must be true"):
        LayerCAM(["features.0", "features.1"], rectify=False)
