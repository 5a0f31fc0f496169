"""Each method against its oracle in float64: of random weights, and of SqueezeNet's on real photos."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datamodules import Preprocess, decode_image
from lightning_modules import AttributionMethod, IntegratedGradients, Network, as_network, explain
from lightning_modules.networks.inputs import trusted
from lightning_modules.networks.libraries.torchvision import IMAGENET_MEAN, IMAGENET_STD
from tests.lightning_modules.methods.peers import Oracle, captum_integral, oracles
from tests.references import relative_error

KEYS = ["a", "b"]
LAYER = "3"


@pytest.fixture(scope="module")
def network() -> Network:
    """Two convolutions with random weights, of normalized images."""
    layers = [nn.Conv2d(3, 8, 5, 2), nn.ReLU(True), nn.Conv2d(8, 12, 3, 2), nn.ReLU(True), nn.AdaptiveAvgPool2d(3)]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(108, 5))
    return as_network(module.double().eval(), mean=IMAGENET_MEAN, std=IMAGENET_STD, input_size=40)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 52, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


TARGET = torch.tensor([1, 4])


def name_of(value: object) -> str:
    return repr(value) if isinstance(value, AttributionMethod) else "oracle"


@pytest.mark.parametrize(("method", "oracle"), oracles(LAYER), ids=name_of)
def test_of_random_weights(network: Network, images: Tensor, method: AttributionMethod, oracle: Oracle) -> None:
    maps = explain(network, images, [method], TARGET, keys=KEYS)[repr(method)]
    with trusted():  # noisy copies leave [0, 1]
        assert relative_error(maps, oracle(network, images, TARGET, KEYS)) <= 1e-6


@pytest.mark.photos
@pytest.mark.slow
def test_of_photos(photos: Path, plain_squeezenet: nn.Module) -> None:
    network = as_network(plain_squeezenet.double(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
    try:
        preprocess = Preprocess(72, 64, "bilinear")
        paths = sorted(photos.glob("*/*"))[:1]
        images = torch.stack([preprocess(decode_image(str(path))) for path in paths]).double()
        keys = [path.name for path in paths]
        cases = list(oracles("features.3"))
        maps = explain(network, images, [method for method, _ in cases], keys=keys)
        for method, oracle in cases:
            with trusted():
                expected = oracle(network, images, maps.forward_pass.target, keys)
            assert relative_error(maps[repr(method)], expected) <= 1e-6, repr(method)
    finally:
        plain_squeezenet.float()


@pytest.mark.parametrize("rule", [("right", "riemann_right"), ("gauss_legendre", "gausslegendre")], ids=str)
def test_completeness_error_is_captums(network: Network, images: Tensor, rule: tuple) -> None:
    method = IntegratedGradients(4, "mean", rule[0])
    maps = explain(network, images, [method], TARGET)
    _, delta = captum_integral(method, rule[1], network, images, TARGET, KEYS)
    told = method.extra_columns(maps[repr(method)], maps.forward_pass)
    torch.testing.assert_close(told["completeness_error"], delta.abs(), rtol=1e-5, atol=1e-8)
