"""What people get wrong at first, from Python: a sentence says what would be right, before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.ao import quantization

from lightning_modules import (
    FGSM,
    PGD,
    RISE,
    AttributionModule,
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    InputError,
    Network,
    Noise,
    Occlusion,
    RobustnessModule,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    as_network,
    explain,
    load_network,
)
from lightning_modules.metrics import AverageDrop
from lightning_modules.networks.built_in.vgg16 import load_vgg16
from tests.lightning_modules.networks.strangers import RunsTwice, Small
from tests.lightning_modules.test_waits import METHODS

NAMES = ["ape", "bee", "cat", "dog"]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def network() -> Network:
    module = Small().eval().requires_grad_(False)
    return as_network(module, mean=MEAN, std=STD, input_size=32, target_layer="body", class_names=NAMES)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 32, 32)


def normalized(images: Tensor) -> Tensor:
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    """Images of which the second has a pixel of that value."""
    return lambda images: images.index_put((torch.tensor([1]),) + (torch.tensor([0]),) * 3, torch.tensor(value))


IMAGES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "normalized": (normalized, r"number 0, 1 \(of 2\) reach from -.*the network normalizes by itself"),
    "one of them normalized": (lambda x: torch.cat([x[:1], normalized(x[1:])]), r"number 1 \(of 2\)"),
    "0 to 255": (lambda x: x * 255, "from 0 to 255, datamodules.batch.pixels_of"),
    "-1 to 1": (lambda x: 2 * x - 1, "If they are normalized"),
    "a pixel of 1.5": (with_one(1.5), r"number 1 \(of 2\) reach from .* to 1\.5.*clamp\(0, 1\)"),
    "NaN": (with_one(torch.nan), "NaN or infinite are some of number 1"),
    "infinite": (with_one(torch.inf), "NaN or infinite are some of number 1"),
    "bytes": (lambda x: (x * 255).byte(), "uint8: datamodules.batch.pixels_of makes pixels of bytes"),
    "whole numbers": (lambda x: (x * 255).long(), "int64: if they count from 0 to 255, images / 255"),
    "numpy": (lambda x: x.numpy(), "NumPy array: .*pixels_of.*torch.from_numpy"),
    "a list of tensors": (lambda x: list(x), r"a list of tensors: torch\.stack\(images\)"),
    "a list of arrays": (lambda x: list(x.numpy()), "a list of which the first is a NumPy array"),
    "PIL": (lambda x: Image.new("RGB", (32, 32)), r"a PIL image: datamodules\.Preprocess\(.*\[None\] makes pixels"),
    "a list of PIL": (lambda x: [Image.new("RGB", (32, 32))], "a list of which the first is a PIL image"),
    "a path": (lambda x: "photos/cat.jpg", "'photos/cat.jpg': datamodules.decode_image reads"),
    "one image": (lambda x: x[0], r"got \(3, 32, 32\): one image without a batch; images\[None\]"),
    "one image, channels last": (lambda x: x[0].permute(1, 2, 0), r"images\.permute\(2, 0, 1\)\[None\]"),
    "NHWC": (lambda x: x.permute(0, 2, 3, 1), r"the channels lie last; images\.permute\(0, 3, 1, 2\)"),
    "four channels": (lambda x: torch.cat([x, x[:, :1]], 1), r"four channels; images\[:, :3\]"),
    "one channel": (lambda x: x[:, :1], r"one channel; images\.expand\(-1, 3, -1, -1\)"),
    "five axes": (lambda x: x[None], r"should be \(N, 3, H, W\), got \(1, 2, 3, 32, 32\)\."),
    "float64": (lambda x: x.double(), r"computes in float32, and images are float64: .*images\.to\(torch\.float32\)"),
    "half": (lambda x: x.half(), "images are float16"),
    "elsewhere": (lambda x: x.to("meta"), r"lies on cpu, the images on meta: images\.to\('cpu'\)"),
    "None": (lambda x: None, "got a NoneType"),
}

CALLS: dict[str, Callable[[Network, Any], Any]] = {
    "explain": lambda network, images: explain(network, images, [GradCAM(), Saliency()]),
    "ForwardPass": lambda network, images: ForwardPass(network, images),
    "network": lambda network, images: network(images),
    "FGSM": lambda network, images: FGSM()(network, images, torch.tensor([0, 1]), 0.1),
    "PGD": lambda network, images: PGD(n_steps=1)(network, images, torch.tensor([0, 1]), 0.1),
    "Noise": lambda network, images: Noise()(network, images, torch.tensor([0, 1]), 0.1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("made", "message"), IMAGES.values(), ids=IMAGES)
def test_images(
    network: Network, images: Tensor, made: Callable[[Tensor], Any], message: str, call: Callable[..., Any]
) -> None:
    with pytest.raises(InputError, match=message):
        call(network, made(images))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_rounding_did_is_no_slip(network: Network, images: Tensor, call: Callable[..., Any]) -> None:
    call(network, with_one(1 + 1e-6)(with_one(-1e-6)(images)))


def test_what_undoes_a_normalization(network: Network, images: Tensor) -> None:
    """As the message says it."""
    again = normalized(images) * network.std + network.mean
    assert torch.allclose(network(again), network(images), atol=1e-5)


def test_methods_may_leave_the_range(network: Network, images: Tensor) -> None:
    """The noisy copies of an image that was looked at are trusted."""
    explain(network, images, [SmoothGrad(n_samples=2, noise_level=3.0)])


OBJECTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a class of methods": (lambda x: explain(small(), x, [GradCAM]), r"GradCAM is a class; write GradCAM\(\)"),  # type: ignore[list-item]
    "its name": (lambda x: explain(small(), x, ["GradCAM"]), r"'GradCAM' is a text, and no method; write GradCAM\(\)"),  # type: ignore[list-item]
    "its name alone": (lambda x: explain(small(), x, "GradCAM"), r"write GradCAM\(\)"),  # type: ignore[arg-type]
    "no list": (lambda x: explain(small(), x, GradCAM()), r"methods should be a list, such as \[GradCAM\(\)\]"),  # type: ignore[arg-type]
    "no method": (lambda x: explain(small(), x, [torch.relu]), "is no method: .* derives from AttributionMethod"),  # type: ignore[list-item]
    "a class within": (lambda x: SmoothGrad(method=GradCAM), r"GradCAM is a class; write GradCAM\(\)"),  # type: ignore[arg-type]
    "a class of metrics": (
        lambda x: AttributionModule("shapes", [Saliency()], [AverageDrop]),
        r"AverageDrop is a class; write AverageDrop\(\)",
    ),
    "a class of attacks": (lambda x: RobustnessModule("shapes", attack=FGSM), r"FGSM is a class; write FGSM\(\)"),
    "several layers": (lambda x: explain(small(), x, [GradCAM(["body"])]), r"one layer, and got \['body'\]: LayerCAM"),  # type: ignore[arg-type]
    "a layer itself": (
        lambda x: explain((of := small()), x, [GradCAM(of.module.body)]),
        "named by text, such as 'body', and it got Sequential",
    ),
    "a target layer itself": (lambda x: as_network(Small(), target_layer=3), "target_layer: .* named by text"),  # type: ignore[arg-type]
    "a name for a network": (lambda x: explain("vgg16", x, [GradCAM()]), r"load_network\(name\).*got a str"),  # type: ignore[arg-type]
    "a class for a network": (lambda x: explain(Small, x, []), "Small is a class"),  # type: ignore[arg-type]
    "a name for a module": (lambda x: as_network("vgg16"), r"load_network\('vgg16'\)"),  # type: ignore[type-var]
    "a class for a module": (lambda x: as_network(Small), r"Small is a class; write Small\(\)"),  # type: ignore[type-var]
    "a module to load": (lambda x: load_network(Small()), r"as_network\(module\)"),  # type: ignore[arg-type]
    "no target of an attack": (lambda x: FGSM()(small(), x, None, 0.1), "An attack needs a target"),  # type: ignore[arg-type]
    "a budget in bytes": (lambda x: FGSM()(small(), x, 0, 4), r"Did you mean 4/255\?"),  # type: ignore[arg-type]
    "a budget below 0": (lambda x: FGSM()(small(), x, 0, -0.1), "eps must be at least 0"),  # type: ignore[arg-type]
}


def small() -> Network:
    return as_network(Small().eval(), input_size=32)


@pytest.mark.parametrize(("call", "message"), OBJECTS.values(), ids=OBJECTS)
def test_objects(images: Tensor, call: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(images)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_module_that_is_no_network(images: Tensor, method: Any) -> None:
    message = r"A Small does not say how its images are normalized: .*as_network\("
    with pytest.raises(InputError, match=message):
        explain(Small().eval(), images, [method])  # type: ignore[arg-type]
    for attack in (FGSM(), Noise()):
        with pytest.raises(InputError, match=message):
            attack(Small().eval(), images, torch.tensor([0, 1]), 0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_module_of_half_the_bits(images: Tensor, dtype: torch.dtype) -> None:
    half = as_network(Small().eval().to(dtype), input_size=32)
    for method in (GradCAM("body"), Saliency(), SmoothGrad(2)):
        with pytest.raises(InputError, match=r"images are float32: make the network of module\.float\(\), or give"):
            explain(half, images, [method])
        assert explain(half, images.to(dtype), [method])[repr(method)].isfinite().all()


@pytest.mark.parametrize(
    ("target", "index"),
    [
        *(("cat", [2, 2]), (["dog", "ape"], [3, 0]), ([3, "ape"], [3, 0]), ((1, 2), [1, 2])),
        *((np.int64(2), [2, 2]), (torch.tensor(2), [2, 2]), (np.array([1, 0]), [1, 0])),
        (torch.tensor([1, 0], dtype=torch.int32), [1, 0]),
    ],
    ids=str,
)
def test_a_class_may_be_named(network: Network, images: Tensor, target: Any, index: list[int]) -> None:
    assert explain(network, images, [Saliency()], target).forward_pass.target.tolist() == index
    expected = FGSM()(network, images, torch.tensor(index), 0.1)
    assert torch.equal(FGSM()(network, images, target, "25.5/255"), expected)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["zebra", "n02391049"])
def test_imagenet_has_a_zebra(random_vgg16: Network, target: str) -> None:
    assert ForwardPass(random_vgg16, torch.rand(1, 3, 32, 32), target).target.tolist() == [340]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cow", r"no class 'cow'\. Did you mean"),
        (["cat", "cow"], r"no class 'cow'"),
        (4, r"target must lie in \[0, 4\), got 4"),
        ([0, 4], r"target must lie in \[0, 4\), got \[0, 4\]"),
        (True, r"target must be integer"),
        ([0, 1, 2], r"target must be integer \(2,\), or one class, got torch.int64 \(3,\)"),
        (torch.tensor([0.0, 1.0]), "target must be integer"),
        ({"a": 1}, r"target should be a class, or one of each of the 2 images, got \{'a': 1\}"),
    ],
    ids=str,
)
def test_no_class(network: Network, images: Tensor, target: Any, message: str) -> None:
    for call in (explain, lambda *args: FGSM()(network, images, target, 0.1)):
        with pytest.raises(InputError, match=message):
            call(network, images, [GuidedBackprop()], target)


@pytest.fixture(scope="module")
def quantized() -> Network:
    """A small network in whole numbers of 8 bits."""
    body = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())
    body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch has a successor of it
        module = quantization.QuantWrapper(body).eval()
        module.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        prepared = quantization.prepare(module)
        prepared(torch.rand(8, 3, 32, 32))
        return as_network(quantization.convert(prepared), mean=MEAN, std=STD, input_size=32).freeze()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_quantized_module(quantized: Network, images: Tensor, method: Any) -> None:
    """It has no gradients; what asks for none explains it."""
    method = ScoreCAM("module.1") if isinstance(method, ScoreCAM) else method
    if isinstance(method, Occlusion | RISE | ScoreCAM):
        maps = explain(quantized, images, [method])[repr(method)]
        assert maps.isfinite().all()
        assert maps.flatten(1).any(1).all()
        return
    with pytest.raises(InputError, match=r"no gradient .*: it is quantized \(its layer quant\).*\. Occlusion, RISE"):
        method.needs(quantized)
    with pytest.raises(InputError, match="it is quantized"):
        FGSM()(quantized, images, torch.tensor([0, 1]), 0.1)


def test_the_end_of_a_layers_name_will_do() -> None:
    assert as_network(Small().eval(), input_size=32, target_layer="1").target_layer == "body.1"
    twice = as_network(RunsTwice().eval(), input_size=8, target_layer="relu@1")
    assert twice.target_layer == "relu@1"
    assert explain(twice, torch.rand(1, 3, 8, 8), [GradCAM()])["GradCAM"].shape == (1, 1, 8, 8)


def test_a_size_that_a_network_does_not_take() -> None:
    network = load_vgg16("shapes")
    with pytest.raises(InputError, match=r"VGG16 fails on images of 8 × 8 pixels: .* It was trained on 112 × 112"):
        explain(network, torch.rand(1, 3, 8, 8), [GradCAM()])
