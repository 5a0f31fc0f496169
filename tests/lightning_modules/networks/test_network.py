"""One class around any module, which stays as it was."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from lightning_modules import GradCAM, GuidedBackprop, InputError, Network, Saliency, as_network, explain, load_vgg16

MEAN, STD = (0.1, 0.9, 0.2), (0.5, 0.25, 2.0)


class Net(nn.Module):
    """Batch norm and dropout, so that running it in training mode would change it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.module = nn.Linear(4, 3)  # a layer of the same name as the network's own part

    def forward(self, x: Tensor) -> Tensor:
        return self.module(nn.functional.dropout(self.body(x).mean((2, 3)), training=self.training))


@pytest.fixture
def module() -> Net:
    return Net().eval()


def everything_of(module: nn.Module) -> list[Any]:
    return [
        (name, type(part), part.training, sorted(vars(part)), len(part._forward_hooks))
        for name, part in module.named_modules()
    ] + [(name, tensor.clone().tolist()) for name, tensor in module.state_dict().items()]


def test_the_module_stays_as_it_was(module: Net) -> None:
    module.body[1].train()  # one part in another mode than the rest
    before, random = everything_of(module), torch.get_rng_state()
    network = as_network(module, mean=MEAN, std=STD, target_layer="body")
    assert everything_of(module) == before
    assert torch.equal(torch.get_rng_state(), random)
    module.eval()
    explain(network, torch.rand(2, 3, 8, 8), [GradCAM(), GuidedBackprop()])
    assert [parameter.grad for parameter in module.parameters()] == [None] * 6
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_one_in_training_mode_is_not_changed_by_looking_at_it() -> None:
    module = Net().train()
    before = everything_of(module)
    network = as_network(module)
    assert everything_of(module) == before
    with pytest.raises(InputError, match="training mode"):
        explain(network, torch.rand(2, 3, 8, 8), [Saliency()])


def test_normalization_and_names(module: Net) -> None:
    network, images = as_network(module, mean=MEAN, std=STD), torch.rand(2, 3, 8, 8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    assert torch.equal(network(images), module((images - mean) / std))
    assert list(network.layers) == ["body", "body.0", "body.1", "body.2", "module"]
    assert network.layers["body.0"] is module.body[0]
    assert torch.equal(as_network(module)(images), module(images))


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 1, 1), (2, 1, 4, 4)], ids=["images", "a pixel", "grey"])
def test_normalization_and_its_gradient_are_the_same_however_pixels_lie(module: Net, shape: tuple[int, ...]) -> None:
    """To the bit, with the definition."""
    network = as_network(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.7))
    pixels = torch.rand(shape)
    for of in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        images = of.clone().requires_grad_()
        normalized = network.normalized(images)
        assert torch.equal(normalized, (of - network.mean) / network.std)
        assert normalized.stride() == ((of - network.mean) / network.std).stride()
        (gradient,) = torch.autograd.grad((normalized * normalized.detach()).sum(), images)
        expected = normalized.detach() / network.std
        assert torch.equal(gradient, expected if shape[1] == 3 else expected.sum(1, keepdim=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_bytes_are_not_taken_for_pixels(module: Net, dtype: torch.dtype) -> None:
    """They would be subtracted from and divided without a word, as pixels of up to 255."""
    with pytest.raises(InputError, match=rf"pixels in \[0, 1\], got {dtype}: (datamodules.batch.pixels_of|.*/ 255)"):
        as_network(module, mean=MEAN, std=STD)(torch.ones(2, 3, 8, 8, dtype=dtype))


def test_what_is_known(module: Net) -> None:
    network = as_network(module, input_size=16, class_names=["ant", "bee", "cat"], target_layer="body.2")
    assert network.class_names == ["ant", "bee", "cat"]
    assert (network.input_size, network.resize_size, network.interpolation) == (16, 18, "bilinear")
    assert network.layers_with_positions == dict.fromkeys(["body", "body.0", "body.1", "body.2"], (4, 14, 14))
    assert network.layer_channels == {"body": 4, "body.0": 4, "body.1": 4, "body.2": 4, "module": 3}
    assert as_network(module).class_names == ["0", "1", "2"]
    assert as_network(network) is network


def test_channels_of_vgg16() -> None:
    channels = load_vgg16("shapes").layer_channels
    assert list(channels)[:2] == ["features.0", "features.1"]
    assert channels["features.28"] == 128
    assert channels["classifier.6"] == 8


def test_the_state_dict_is_the_modules_own(module: Net) -> None:
    network, other = as_network(module), as_network(Net().eval())
    assert list(network.state_dict()) == list(module.state_dict())
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.module.body[0].weight, module.body[0].weight)
    # As a part of something larger too, such as a LightningModule.
    first, second = nn.ModuleDict({"network": network}), nn.ModuleDict({"network": as_network(Net().eval())})
    assert set(first.state_dict()) == {f"network.{name}" for name in module.state_dict()}
    second.load_state_dict(first.state_dict())
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_compute_the_same(module: Net, copied: Any) -> None:
    network, images = as_network(module, mean=MEAN, std=STD, target_layer="body"), torch.rand(2, 3, 8, 8)
    other = copied(network)
    assert other.module is not module
    for method in (GradCAM(), GuidedBackprop()):
        (expected,), (found,) = (explain(each, images, [method], 1).values() for each in (network, other))
        assert torch.equal(found, expected)
    assert other.state_dict().keys() == network.state_dict().keys()


def test_to_a_dtype(module: Net) -> None:
    network = as_network(module, mean=MEAN, std=STD).double()
    assert network(torch.rand(1, 3, 8, 8, dtype=torch.float64)).dtype == torch.float64
    assert as_network(Net().eval().double(), mean=MEAN, std=STD).mean.dtype == torch.float64


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of PyTorch's own compiler
@pytest.mark.parametrize("how", ["module", "network"])
def test_compiled(module: Net, how: str) -> None:
    """Normalized, its layers under their own names, and the rules of Guided Backpropagation followed."""
    plain = as_network(module, mean=MEAN, std=STD, target_layer="body")
    if how == "module":
        network = as_network(torch.compile(module, backend="eager"), mean=MEAN, std=STD, target_layer="body")
    else:
        network = as_network(module, mean=MEAN, std=STD, target_layer="body")
        network.compile(backend="eager")
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(network(images), plain(images))
    assert list(network.layers) == list(plain.layers)
    for method in (GradCAM(), GuidedBackprop(), Saliency()):
        (expected,), (found,) = (explain(each, images, [method], 1).values() for each in (plain, network))
        torch.testing.assert_close(found, expected)


def test_a_compiled_network_around_another_is_refused() -> None:
    with pytest.raises(InputError, match=r"network\.compile\(\)"):
        as_network(torch.compile(as_network(Net().eval()), backend="eager"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": MEAN}, "mean and std belong together"),
        ({"class_names": ["ant", "bee"]}, "has 3 outputs, but 2 class_names"),
        ({"target_layer": "bdy"}, "target_layer: Net has no layer 'bdy'. Did you mean body"),
        ({"input_size": 2}, r"Net fails on an image \(3, 2, 2\)"),
    ],
)
def test_what_does_not_fit_is_refused(module: Net, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_network(module, **options)


def test_a_network_is_not_normalized_twice(module: Net) -> None:
    with pytest.raises(InputError, match="network already"):
        as_network(as_network(module), mean=MEAN, std=STD)


def test_mean_pixel(module: Net) -> None:
    assert as_network(module, mean=MEAN, std=STD).mean_pixel.flatten().tolist() == pytest.approx(MEAN)
    module.mean = torch.tensor(MEAN)  # one that normalizes by itself may say so
    assert as_network(module).mean_pixel.flatten().tolist() == pytest.approx(MEAN)


def test_a_layer_that_it_has_not() -> None:
    class Mine(ResNet):
        """A class of somebody else's, of which torchvision says nothing."""

    network: Network = as_network(Mine(BasicBlock, [1] * 4).eval(), mean=MEAN, std=STD, input_size=64)
    with pytest.raises(InputError, match=r"GradCAM needs a layer, and Mine has no layer 'layer5'\. Did you mean lay"):
        network.target_layer_for("GradCAM", "layer5")
    with pytest.raises(InputError, match=r"does not say which layer.*the last first: layer4 512×2×2, layer4\.0 512×2"):
        network.target_layer_for("GradCAM")
