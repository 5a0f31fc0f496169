"""Each family of torchvision's classifiers, and networks of timm's: known, and explained as others explain them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from pytorch_grad_cam import GradCAM as TheirGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lightning_modules import (
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    InputError,
    Network,
    Saliency,
    explain,
    load_network,
)
from tests.references import PEER_CAMS, guided_gradient_by_patching, peer_grid, relative_error

Reshape = Callable[[Tensor], Tensor] | None


def channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def after_a_token(output: Tensor) -> Tensor:
    """As pytorch-grad-cam's documentation has it for ViT: the class token left out."""
    side = int((output.shape[1] - 1) ** 0.5)
    return output[:, 1:].reshape(len(output), side, side, -1).permute(0, 3, 1, 2)


def after_two_tokens(output: Tensor) -> Tensor:
    return after_a_token(output[:, 1:])


class Case(NamedTuple):
    """What a network is expected to be.

    Attributes:
        target_layer: The default layer of Grad-CAM.
        layers: Others to look at, or the same where it is not changed in place afterwards.
        reshape: What pytorch-grad-cam has to be told of their layout.
        guided: "" = Guided Backpropagation is defined; else the activations for which it is not: ``only`` those, and it
            is refused, or, after ``also``, beside rectifiers, and that is told.
        input_size: Side of the images; None = the network's own.
    """

    target_layer: str
    layers: tuple[str, ...]
    reshape: Reshape = None
    guided: str = ""
    input_size: int | None = 96


TORCHVISION = {
    "alexnet": Case("features.11", ("features.11", "features.9")),
    "convnext_tiny": Case("features", ("features", "features.3"), guided="only GELU", input_size=64),
    "densenet121": Case("features", ("features.denseblock4", "features.transition2.conv")),
    "efficientnet_b0": Case("features", ("features", "features.5.1"), guided="only SiLU and Sigmoid"),
    "efficientnet_v2_s": Case("features", ("features",), guided="only SiLU and Sigmoid", input_size=64),
    "googlenet": Case("inception5b", ("inception5b", "inception4c.branch2")),
    "inception_v3": Case("Mixed_7c", ("Mixed_7c", "Mixed_6e.branch7x7_3"), input_size=128),
    "maxvit_t": Case(
        "blocks.3", ("blocks.3", "blocks.1.layers.1"), guided="only GELU, SiLU, Sigmoid and Tanh", input_size=224
    ),
    "mnasnet0_5": Case("layers", ("layers", "layers.10")),
    "mobilenet_v2": Case("features", ("features", "features.14")),
    "mobilenet_v3_small": Case("features", ("features", "features.9"), guided="also Hardswish and Hardsigmoid"),
    "regnet_x_400mf": Case("trunk_output", ("trunk_output", "trunk_output.block3")),
    "regnet_y_400mf": Case("trunk_output", ("trunk_output",), guided="also Sigmoid"),
    "resnet18": Case("layer4", ("layer4", "layer3.1.conv2")),
    "shufflenet_v2_x0_5": Case("conv5", ("conv5", "stage3")),
    "squeezenet1_1": Case("features", ("features", "features.9")),
    "swin_t": Case("features", ("features.7", "features.5.1.norm1"), channels_last, guided="only GELU", input_size=128),
    "swin_v2_t": Case("features", ("features.7",), channels_last, guided="only GELU", input_size=128),
    "vgg11_bn": Case("features.27", ("features.27",)),
    "vit_b_32": Case(
        "encoder.layers.encoder_layer_11.ln_1",
        ("encoder.layers.encoder_layer_11.ln_1", "encoder.layers.encoder_layer_7"),
        after_a_token,
        guided="only GELU",
        input_size=None,
    ),
}

TIMM = {
    "resnet18": Case("layer4", ("layer4", "layer2.1")),
    "vit_tiny_patch16_224": Case("blocks.11.norm1", ("blocks.11.norm1", "blocks.8"), after_a_token, "only GELU", None),
    "deit_tiny_distilled_patch16_224": Case("blocks.11.norm1", ("blocks.9",), after_two_tokens, "only GELU", None),
    "efficientnet_lite0": Case("bn2", ("bn2", "blocks.4.1")),
    "swin_tiny_patch4_window7_224": Case("norm", ("norm", "layers.2.blocks.3.norm1"), channels_last, "only GELU", None),
}

CASES = {f"torchvision.models.{name}": case for name, case in TORCHVISION.items()}
CASES |= {f"timm.{name}": case for name, case in TIMM.items()}


def test_no_family_is_left_out() -> None:
    """Of each file and class of torchvision's classifiers, one is in the table."""

    def family(name: str) -> tuple[str, str]:
        builder = models.get_model_builder(name)
        # The files hold V2 beside V1, as another architecture.
        return builder.__module__, name.partition("_v")[2][:1]

    assert {family(name) for name in models.list_models(module=models)} == {family(name) for name in TORCHVISION}


@pytest.mark.slow
@pytest.mark.parametrize("path", CASES)
def test_table(path: str) -> None:
    case = CASES[path]
    network = loaded(path, case)
    assert network.target_layer == case.target_layer
    assert (network.mean.flatten().tolist(), network.std.flatten().tolist()) == normalization(network, path)
    assert set(network.facts.by_label) >= {case.target_layer, *case.layers}
    network.double()
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, network.input_size, network.input_size, generator=generator, dtype=torch.float64)
    target = int(network(images).argmax())
    cams = [cam(layer) for cam in PEER_CAMS for layer in case.layers]
    maps = explain(network, images, [Saliency(), *cams], target)
    expected = gradient(network, images, target)
    assert relative_error(maps["Saliency"], expected) < 1e-9
    for name, expected in their_cams(network, case, images, target).items():
        if name.startswith("GradCAM(") or expected.any():
            # The peer adds 1e-7 to what XGrad-CAM divides by: it decides where activations add up to next to nothing.
            assert relative_error(maps[name], expected) < (0.1 if name.startswith("XGradCAM") else 1e-6)
        else:  # of random weights a map may be negative everywhere
            assert not maps[name].any()
    check_guided(network, images, target, case)


def check_guided(network: Network, images: Tensor, target: int, case: Case) -> None:
    """The guided maps are an oracle's, or refused, or it is told that the rule leaves some activations alone."""
    layer = case.layers[0]
    methods = [GuidedBackprop(), GuidedGradCAM(layer), GradCAM(layer)]
    how, _, activations = case.guided.partition(" ")
    if how == "only":
        with pytest.raises(InputError, match=f"{activations}"):
            explain(network, images, methods, target)
        return
    if how == "also":
        with pytest.warns(UserWarning, match=f"{activations}"):
            maps = explain(network, images, methods, target)
    else:
        maps = explain(network, images, methods, target)
    expected = guided_gradient_by_patching(network, images, target)
    assert relative_error(maps["GuidedBackprop"], expected) < 1e-9
    product = maps[repr(GradCAM(layer))] * expected
    assert relative_error(maps[repr(GuidedGradCAM(layer))], product) < 1e-9


def loaded(path: str, case: Case) -> Network:
    library, _, name = path.rpartition(".")
    size = {} if case.input_size is None else {"input_size": case.input_size}
    timm = {"class_path": "timm.create_model", "init_args": {"model_name": name}}
    network = load_network(timm if library == "timm" else path, "random", **size)
    head = [layer for layer in network.module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    if not head.weight.any():  # as torchvision's ViT begins
        nn.init.normal_(head.weight, 0, 0.05, generator=torch.Generator().manual_seed(0))
    return network


def normalization(network: Network, path: str) -> Any:
    if path.startswith("timm"):
        config = network.module.pretrained_cfg
        return tuple(pytest.approx(list(config[name])) for name in ("mean", "std"))
    return pytest.approx([0.485, 0.456, 0.406]), pytest.approx([0.229, 0.224, 0.225])


def gradient(network: Network, images: Tensor, target: int) -> Tensor:
    images = images.clone().requires_grad_()
    network(images)[:, target].sum().backward()
    assert images.grad is not None
    return images.grad


def their_cams(network: Network, case: Case, images: Tensor, target: int) -> dict[str, Tensor]:
    """pytorch-grad-cam's maps before they are scaled to [0, 1], at the size of the images, by what ours are called."""
    targets = [ClassifierOutputTarget(target)] * len(images)
    # It keeps what layers give in the order in which they run.
    names = sorted(case.layers, key=[*network.facts.calls].index)
    layers = [network.layers[name] for name in names]
    maps = {}
    with TheirGradCAM(model=network, target_layers=layers, reshape_transform=case.reshape) as cam:
        cam(images.clone().requires_grad_(), targets)
        kept = cam.activations_and_grads
        for name, activations, gradients in zip(names, kept.activations, kept.gradients, strict=True):
            for ours in PEER_CAMS:
                small = peer_grid(ours, activations, gradients).relu()
                maps[repr(ours(name))] = F.interpolate(small, images.shape[2:], mode="bilinear", align_corners=False)
    return maps
