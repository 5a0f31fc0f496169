from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import GuidedBackprop as CaptumGuidedBackprop
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights, resnet18

from lightning_modules import (
    AttributionModule,
    GradCAM,
    GuidedBackprop,
    InputError,
    Network,
    RobustnessModule,
    Saliency,
    WeightsError,
    as_network,
    load_network,
    load_vgg16,
)
from lightning_modules.metrics import WeightRandomization, cascade
from tests.references import full_pass

RESNET18 = "torchvision.models.resnet18"


class MyNet(nn.Module):
    """A stranger's network, which says nothing of itself."""

    def __init__(self, n_classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, stride=4)
        self.head = nn.Linear(4, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).relu().mean((2, 3)))


class Described(MyNet):
    class_names = ("ant", "bee", "cat")
    input_size = 32
    resize_size = 40
    target_layer = "body"


class TwoOutputs(MyNet):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


class WrongNames(MyNet):
    class_names = ("ant", "bee")


def not_a_module() -> int:
    return 3


def normalized_net() -> Network:
    return as_network(MyNet(), mean=(0.5,) * 3, std=(0.5,) * 3, input_size=8)


HERE = __name__


@pytest.fixture(scope="module")
def resnet() -> Any:
    """torchvision's ResNet-18 with weights that make its ReLUs cut some of everything."""
    return load_network(RESNET18, "random")


def test_vgg16_is_the_default() -> None:
    first, second = load_network(weights="shapes").state_dict(), load_vgg16("shapes").state_dict()
    assert torch.equal(first["features.0.weight"], second["features.0.weight"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [("resnet18", "layer4", (512, 7, 7)), ("squeezenet1_1", "features", (512, 13, 13))],
)
def test_torchvisions_networks(name: str, layer: str, grid: tuple[int, ...]) -> None:
    network = load_network(f"torchvision.models.{name}", "random")
    assert (network.target_layer, network.input_size, network.resize_size) == (layer, 224, 256)
    assert (len(network.class_names), network.class_names[281]) == (1000, "tabby")
    assert network.layers_with_positions[layer] == grid
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    forward_pass = full_pass(network, torch.rand(2, 3, 64, 64), torch.tensor([1, 2]))
    for method in (GradCAM(), GuidedBackprop()):
        assert method(forward_pass).isfinite().all()
        # Grad-CAM of an untrained network may cut one of the images to zero.
        assert method(forward_pass).abs().max() > 0


def test_normalization_lies_inside(resnet: Any) -> None:
    plain = resnet18()
    plain.load_state_dict(resnet.state_dict())
    images = torch.rand(2, 3, 64, 64)
    preset = ResNet18_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preset.mean, preset.std))
    torch.testing.assert_close(resnet(images), plain.eval()((images - mean) / std))
    assert set(plain.state_dict()) == set(resnet.state_dict())
    assert type(resnet.module) is type(plain)
    torch.testing.assert_close(copy.deepcopy(resnet)(images), resnet(images))


def test_the_seed_decides_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (load_network(f"{HERE}.normalized_net", "own", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.module.body.weight, again.module.body.weight)
    assert not torch.equal(first.module.body.weight, other.module.body.weight)


def test_a_network_that_says_nothing_of_itself() -> None:
    with pytest.warns(UserWarning, match=r"gets pixels in \[0, 1\].*, nor the size of its images: it gets 224 × 224"):
        network = load_network(f"{HERE}.MyNet", "random")
    assert (network.class_names, network.input_size, network.resize_size) == (["0", "1", "2"], 224, 256)
    assert network.target_layer is None
    five = {"class_path": f"{HERE}.MyNet", "init_args": {"n_classes": 5}}
    said = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": 32}
    assert len(load_network(five, "own", **said).class_names) == 5


def test_a_network_that_describes_itself() -> None:
    with pytest.warns(UserWarning, match=r"Described does not say how its images are normalized: [^,]* in \[0, 1\] \("):
        network = load_network(f"{HERE}.Described", "own")
    assert network.class_names == ["ant", "bee", "cat"]
    assert (network.input_size, network.resize_size, network.target_layer) == (32, 40, "body")


def test_against_captum(resnet: Any) -> None:
    """Residual sums, and ReLUs in place that a block uses several times."""
    images = torch.rand(3, 3, 64, 64)
    target = torch.tensor([3, 141, 592])
    forward_pass = full_pass(resnet, images, target, layers=["layer3", "layer4"])
    theirs = copy.deepcopy(resnet).requires_grad_(True)
    for layer in ("layer3", "layer4"):
        cam = LayerGradCam(theirs, theirs.layers[layer]).attribute(images, target, relu_attributions=True)
        cam = LayerAttribution.interpolate(cam, (64, 64), "bilinear")
        assert cam.amax((1, 2, 3)).min() > 0
        torch.testing.assert_close(GradCAM(layer)(forward_pass), cam.detach(), rtol=1e-4, atol=1e-7)
    _with_a_relu_each(theirs.module)
    with pytest.warns(UserWarning, match="Setting backward hooks on ReLU"):
        guided = CaptumGuidedBackprop(theirs).attribute(images.clone().requires_grad_(), target)
    torch.testing.assert_close(GuidedBackprop()(forward_pass), guided.detach(), rtol=1e-4, atol=1e-6)


def _with_a_relu_each(network: Any) -> None:
    """captum's hooks need a ReLU module for each use, not in place."""
    for block in [block for k in (1, 2, 3, 4) for block in network.get_submodule(f"layer{k}")]:
        block.second = nn.ReLU()
        block.relu = nn.ReLU()

        def forward(x: Tensor, block: Any = block) -> Tensor:
            shortcut = x if block.downsample is None else block.downsample(x)
            return block.second(block.bn2(block.conv2(block.relu(block.bn1(block.conv1(x))))) + shortcut)

        block.forward = forward
    network.relu = nn.ReLU()


def test_an_activation_is_not_overwritten_by_a_sum_in_place(resnet: Any) -> None:
    """torchvision's blocks add their shortcut to what the last batch norm gave, in place."""
    images = torch.rand(1, 3, 64, 64)
    kept = full_pass(resnet, images, layers=["layer4.1.bn2"]).activation("layer4.1.bn2")
    seen = []
    layer = resnet.layers["layer4.1.bn2"]
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.clone()))
    resnet(images)
    handle.remove()
    torch.testing.assert_close(kept, seen[0])


def test_the_cascade_randomizes_other_networks(resnet: Any) -> None:
    layers = WeightRandomization().layers_of(resnet)
    assert layers[0] == "fc"
    assert "layer1.0.conv1" in layers
    images = torch.rand(1, 3, 64, 64)
    assert not torch.allclose(next(cascade(resnet, layers))[1](images), resnet(images))


@pytest.mark.slow
def test_a_state_dict(resnet: Any, tmp_path: Path) -> None:
    changed = {name: tensor * 1.1 for name, tensor in resnet.state_dict().items()}
    torch.save(changed, tmp_path / "bare.pth")
    torch.save({"state_dict": {f"network.{n}": t for n, t in changed.items()}, "epoch": 3}, tmp_path / "some.ckpt")
    bare = load_network(RESNET18, tmp_path / "bare.pth")
    with pytest.warns(UserWarning, match=r"some\.ckpt: the prefix network\. was removed from its names\."):
        checkpoint = load_network(RESNET18, tmp_path / "some.ckpt")
    for loaded in (bare, checkpoint):
        torch.testing.assert_close(loaded.module.fc.weight, resnet.module.fc.weight * 1.1)
    with pytest.raises(WeightsError, match=r"bare\.pth does not hold weights of torchvision.*shape \(64, 64, 3, 3\)"):
        load_network("torchvision.models.resnet50", tmp_path / "bare.pth")


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "DEFAULT"])  # the second is torchvision's alias
def test_torchvisions_weights_are_checked(
    resnet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The whole way, with the file where the download would put it: its hash decides."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(resnet.state_dict(), tmp_path / "checkpoints/resnet18-f37072fd.pth")
    with pytest.raises(WeightsError, match=r"resnet18-f37072fd\.pth is damaged.*Delete it"):
        load_network(RESNET18, name)


@pytest.mark.parametrize(
    ("network", "weights", "message"),
    [
        ("resnet50", "random", "'resnet50': neither vgg16 nor efficientnet_lite0 nor an import path"),
        ("torchvision.models.resnet5", "random", "has no network called resnet5. Did you mean resnet50"),
        ("no_such_file.MyNet", "random", r"'no_such_file\.MyNet', but no_such_file cannot be imported: No module"),
        ({"class": f"{HERE}.MyNet"}, "random", r"should be an import path, or \{class_path, init_args\}"),
        ({"class_path": "vgg16", "init_args": {"width": 2}}, "random", "vgg16 takes no init_args"),
        ({"class_path": f"{HERE}.MyNet", "init_args": {"width": 2}}, "own", r"MyNet cannot be made with .*'width'"),
        (RESNET18, "IMAGENET1K_V2", r"resnet18 are called 'IMAGENET1K_V2' \(torchvision has IMAGENET1K_V1"),
        (f"{HERE}.MyNet", "IMAGENET1K_V1", r"MyNet are called 'IMAGENET1K_V1' \(it is not torchvision's"),
        (f"{HERE}.not_a_module", "own", "gives a int, not an nn.Module"),
        (f"{HERE}.TwoOutputs", "own", r"should give logits \(N, n_classes\), but gives a tuple"),
        (f"{HERE}.WrongNames", "own", "has 3 outputs, but 2 class_names"),
        ({"class_path": "torch.nn.Linear", "init_args": {"in_features": 3, "out_features": 3}}, "own", "fails on an"),
    ],
)  # fmt: skip
def test_bad_input(network: Any, weights: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_network(network, weights)


def test_a_layer_that_does_not_carry_over() -> None:
    own = {"weights": "own", "network": f"{HERE}.normalized_net"}
    with pytest.raises(InputError, match=r"GradCAM needs a layer, and MyNet does not say which.*: body 4×2×2\."):
        AttributionModule(**own)
    with pytest.raises(
        InputError, match=r"GradCAM needs a layer, and ResNet has no layer 'features\.29'.*: layer4 512×7×7"
    ):
        RobustnessModule(weights="random", network=RESNET18, methods=[GradCAM("features.29")])  # fmt: skip
    AttributionModule(**own, methods=[Saliency(), GradCAM("body")])


def test_what_makes_a_network_may_say_how_it_is_normalized() -> None:
    network = load_network(f"{HERE}.normalized_net", "random")
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(network(images), network.module(images * 2 - 1))
    assert network.mean_pixel.flatten().tolist() == [0.5, 0.5, 0.5]


def test_a_state_dict_of_a_network_made_by_a_function(tmp_path: Path) -> None:
    network = load_network(f"{HERE}.normalized_net", "random", seed=3)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    loaded = load_network(f"{HERE}.normalized_net", tmp_path / "net.pth")
    assert torch.equal(loaded.module.body.weight, network.module.body.weight)
