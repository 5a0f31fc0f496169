"""DeepLift: Captum's own call, image by image; and what Captum would do in silence."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from captum.attr import DeepLift as CaptumDeepLift
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import DeepLift, InputError, Network, as_network, explain, load_network
from tests.references import full_pass

pytestmark = pytest.mark.slow

WARNING = "ignore:Setting forward, backward hooks"


class Pooled(nn.Module):
    """Convolution, pooling, ReLU, of whole numbers: where Captum's max-pooling mixes up the images of a batch."""

    input_size = 8

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(64, 3)
        for parameter in self.parameters():
            parameter.data = torch.randint(-3, 4, parameter.shape, generator=generator).float()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def maps_of(network: Network, images: Tensor, target: int = 1) -> Tensor:
    return explain(network, images, [DeepLift()], target)["DeepLift"]


@pytest.mark.filterwarnings(WARNING)
def test_equals_captum_image_by_image(shapes_network: Network) -> None:
    images = torch.rand(3, 3, 112, 112).contiguous(memory_format=torch.channels_last)
    ours = maps_of(shapes_network, images)
    lift = CaptumDeepLift(shapes_network.module)
    baseline = shapes_network.normalized(shapes_network.mean_pixel.expand_as(images[:1]))
    for image, own in zip(images.split(1), ours.split(1)):
        pixels = shapes_network.normalized(image).requires_grad_()
        assert torch.equal(own, lift.attribute(pixels, baseline, target=1))


def test_a_batch_does_not_matter_where_captum_mixes_images_up() -> None:
    network = as_network(Pooled(), mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.randint(0, 3, (3, 3, 8, 8), generator=torch.Generator().manual_seed(0)) / 2
    before = [set(vars(module)) for module in network.modules()]
    together = maps_of(network, images)
    assert torch.equal(together, torch.cat([maps_of(network, image) for image in images.split(1)]))
    assert [set(vars(module)) for module in network.modules()] == before
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    theirs = CaptumDeepLift(network.module)
    with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
        at_once = theirs.attribute(network.normalized(images).requires_grad_(), torch.zeros_like(images), target=1)
    assert not torch.allclose(at_once, together, rtol=0.1), "Captum's own batch is right: the loop can go"


def test_rows_say_how_far_the_map_is_from_its_sum(shapes_network: Network) -> None:
    forward_pass = full_pass(shapes_network, torch.rand(2, 3, 112, 112))
    maps = DeepLift()(forward_pass)
    extra = DeepLift().extra_columns(maps, forward_pass)
    start = shapes_network(shapes_network.mean_pixel.expand(2, 3, 112, 112))
    difference = forward_pass.target_logit - start.gather(1, forward_pass.target[:, None])[:, 0]
    error = (maps.sum((1, 2, 3)) - difference).abs().double()
    torch.testing.assert_close(extra["completeness_error"], error, rtol=0, atol=1e-4)
    torch.testing.assert_close(extra["relative_completeness_error"], error / difference.abs().double())
    assert (error < 0.01 * difference.abs()).all()


class Functional(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.relu(x))


class Gated(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.gelu(x))


class Likely(Pooled):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: as_network(Functional()),
            "Functional .*: it sees modules alone, and functions are 1 ReLU",
        ),
        (lambda: as_network(Gated()), "Gated would be something else: it has no rule for GELU"),
        (lambda: load_network("torchvision.models.resnet18", "random"), r"ResNet runs 'layer1.0.relu' 2 times \(8"),
        (lambda: load_network("torchvision.models.mobilenet_v2", "random"), "no rule for ReLU6"),
        (
            lambda: load_network("torchvision.models.alexnet", "random"),
            "'features.2', whose windows overlap",
        ),
        (lambda: as_network(Likely(), outputs="probabilities"), "model.outputs is probabilities"),
    ],
    ids=["functional", "unknown", "reused", "ReLU6", "overlapping", "probabilities"],
)
def test_what_captum_would_do_in_silence_is_refused(make: Callable[[], Network], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DeepLift().needs(make())


def test_without_captum(shapes_network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(InputError, match=r"DeepLift is Captum's: pip install 'vgg-lens\[captum\]'"):
        DeepLift().needs(shapes_network)
