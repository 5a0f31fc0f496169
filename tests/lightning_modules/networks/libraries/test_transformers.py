"""Image classifiers of transformers', saved and read back, against the library itself and pytorch-grad-cam."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from pytorch_grad_cam import GradCAM as PeerGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules import Preprocess
from lightning_modules import GradCAM, GuidedBackprop, InputError, as_network, explain, load_network
from lightning_modules.networks.libraries.transformers import preprocessing_of

pytestmark = pytest.mark.slow

N_CLASSES = 5
SIZE = 64
COMMON: dict[str, Any] = {"num_labels": N_CLASSES, "id2label": {k: f"kind {k}, sort {k}" for k in range(N_CLASSES)}}
SMALL: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
SQUARE = {"height": SIZE, "width": SIZE}


class Case(NamedTuple):
    """A family.

    Attributes:
        config: The configuration of a small model.
        processor: Prepares its images.
        reshape: From the output of the layer that Grad-CAM looks at to ``(N, C, h, w)``, for the peer.
        guided: Whether Guided Backpropagation applies.
    """

    config: Any
    processor: Any
    reshape: Callable[[Tensor], Tensor] | None = None
    guided: bool = False


def tokens(n_extra: int, side: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[:, n_extra:].unflatten(1, (side, side)).permute(0, 3, 1, 2)


def cases() -> dict[str, Case]:
    t = transformers
    vit = {**SMALL, **COMMON, "image_size": SIZE, "patch_size": 16}
    shorter = {"size": {"shortest_edge": 73}, "crop_size": SQUARE}
    resnet = t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1], layer_type="basic")
    return {
        "vit": Case(t.ViTConfig(**vit), t.ViTImageProcessorPil(size=SQUARE), tokens(1, 4)),
        "deit": Case(
            t.DeiTConfig(**vit),
            t.DeiTImageProcessorPil(size={"height": 73, "width": 73}, crop_size=SQUARE),
            tokens(2, 4),
        ),
        "beit": Case(t.BeitConfig(**vit), t.BeitImageProcessorPil(size=SQUARE, do_center_crop=False), tokens(1, 4)),
        "swin": Case(
            t.SwinConfig(**COMMON, image_size=SIZE, embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=4),
            t.ViTImageProcessorPil(size=SQUARE, resample=3),
            tokens(0, 8),
        ),
        "convnext": Case(
            t.ConvNextConfig(**COMMON, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], image_size=SIZE),
            t.ConvNextImageProcessorPil(size={"shortest_edge": SIZE}, crop_pct=0.875, resample=3),
        ),
        "resnet": Case(
            t.ResNetConfig.from_dict({**resnet.to_dict(), **COMMON}),
            t.ConvNextImageProcessorPil(size={"shortest_edge": SIZE}, crop_pct=0.9, resample=3),
            guided=True,
        ),
        "mobilenet_v2": Case(
            t.MobileNetV2Config(**COMMON, image_size=SIZE, depth_multiplier=0.35),
            t.MobileNetV2ImageProcessorPil(**shorter),
            guided=True,
        ),
    }


CASES = cases()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of a family's small model, with its processor."""
    root = tmp_path_factory.mktemp("hf")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            torch.manual_seed(0)
            config = CASES[name].config
            model = getattr(transformers, f"{type(config).__name__.removesuffix('Config')}ForImageClassification")(
                config
            )
            with torch.no_grad():  # of a deviation that lets logits differ
                for parameter in model.parameters():
                    parameter.add_(0.1 * torch.randn_like(parameter))
            model.save_pretrained(root / name)
            CASES[name].processor.save_pretrained(root / name)
        return root / name

    return folder


def picture(width: int = 131, height: int = 97) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_gives_what_the_library_gives(folder: Callable[[str], Path], name: str) -> None:
    """Pixels, logits and classes, to the bit."""
    network = load_network(f"hf:{folder(name)}")
    plain = transformers.AutoModelForImageClassification.from_pretrained(folder(name)).eval()
    assert network.class_names == [*COMMON["id2label"].values()]
    assert not any("hf:" in source or source == "nobody" for source in network.sources.values())
    theirs = CASES[name].processor(picture(), return_tensors="pt")["pixel_values"]
    images = Preprocess(**network.preprocessing)(picture())[None]
    torch.testing.assert_close(network.normalized(images), theirs, rtol=0, atol=1e-6)
    network = as_network(plain)  # unlike that above in the memory format of its plain module
    with torch.no_grad():
        assert torch.equal(network(images), plain(network.normalized(images)).logits)


@pytest.mark.parametrize("name", CASES)
def test_grad_cam_equals_the_peers(folder: Callable[[str], Path], name: str) -> None:
    network = load_network(f"hf:{folder(name)}").double()
    layer = network.target_layer
    assert layer is not None
    images = Preprocess(**network.preprocessing)(picture())[None].repeat(N_CLASSES, 1, 1, 1).double()
    ours = explain(network, images, [GradCAM()], torch.arange(N_CLASSES))["GradCAM"].clamp_min(0)
    peer = PeerGradCAM(nn.Sequential(network), [network.layers[layer.partition("@")[0]]], CASES[name].reshape)
    theirs = torch.from_numpy(peer(images.requires_grad_(), [ClassifierOutputTarget(k) for k in range(N_CLASSES)]))
    is_compared = ours.amax((1, 2, 3)) > 1e-3  # below, the peer's stabilizer decides
    assert is_compared.any()
    for mine, other in zip(ours[is_compared], theirs[is_compared]):
        scaled = (mine - mine.min()) / (mine.max() - mine.min())
        enlarged = F.interpolate(scaled[None], (SIZE, SIZE), mode="bilinear")[0, 0]
        assert (enlarged - other).abs().max() < 1e-3


@pytest.mark.parametrize("name", ["vit", "deit", "beit", "swin"])
def test_no_layer_that_is_offered_gives_a_black_map(folder: Callable[[str], Path], name: str) -> None:
    """Also where a block calls its dropout twice: of the last one only the class token goes on."""
    network = load_network(f"hf:{folder(name)}")
    images = Preprocess(**network.preprocessing)(picture())[None].repeat(N_CLASSES, 1, 1, 1)
    for label in network.layers_with_positions:
        maps = explain(network, images, [GradCAM(label)], torch.arange(N_CLASSES))
        assert maps.popitem()[1].abs().max() > 0, label


@pytest.mark.parametrize("name", CASES)
def test_guided_backpropagation(folder: Callable[[str], Path], name: str) -> None:
    network = load_network(f"hf:{folder(name)}")
    images = Preprocess(**network.preprocessing)(picture())[None]
    if CASES[name].guided:
        assert explain(network, images, [GuidedBackprop()])["GuidedBackprop"].abs().max() > 0
    else:
        with pytest.raises(InputError, match="GELU"):
            explain(network, images, [GuidedBackprop()])


def test_by_its_class_and_by_its_instance(folder: Callable[[str], Path]) -> None:
    path = "transformers.AutoModelForImageClassification.from_pretrained"
    arguments = {"pretrained_model_name_or_path": str(folder("vit"))}
    by_path = load_network({"class_path": path, "init_args": arguments}, "own")
    by_name = load_network(f"hf:{folder('vit')}")
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(by_path(images), by_name(images))
    assert by_path.preprocessing == by_name.preprocessing
    model = transformers.ViTForImageClassification(CASES["vit"].config).eval()
    processor = transformers.ConvNextImageProcessorPil(size={"shortest_edge": SIZE}, crop_pct=0.5, resample=2)
    network = as_network(model, processor=processor, input_size=SIZE)
    assert network.preprocessing == {
        "resize_size": 128,
        "input_size": SIZE,
        "interpolation": "bilinear",
        "crop": "center_floor",
    }
    assert network.sources["class_names"] == "transformers' ConvNextImageProcessorPil"
    without = as_network(model)
    assert (without.sources["mean"], without.input_size) == ("nobody", SIZE)


def test_a_backbone_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers draws its head at random, and says so in a log alone."""
    transformers.ViTModel(CASES["vit"].config).save_pretrained(tmp_path)
    CASES["vit"].processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"the weights of .* lack classifier\.bias, classifier\.weight, which transf"):
        load_network(f"hf:{tmp_path}")
    other = {"pretrained_model_name_or_path": str(folder("vit")), "num_labels": 7, "ignore_mismatched_sizes": True}
    path = "transformers.ViTForImageClassification.from_pretrained"
    with pytest.raises(InputError, match=r"lack classifier\.bias, classifier\.weight"):
        load_network({"class_path": path, "init_args": other}, "own")


class Perceiver(transformers.ViTImageProcessorPil):
    """Crops before it resizes."""

    def preprocess(self, images: Any, **options: Any) -> Any:
        return super().preprocess(images.crop((10, 10, 140, 140)), **options)


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            transformers.MobileViTImageProcessorPil(),
            "how MobileViTImageProcessorPil prepares .*: do_flip_channel_order",
        ),
        (transformers.EfficientNetImageProcessorPil(rescale_offset=True), "rescale_offset is set"),
        (transformers.EfficientNetImageProcessorPil(), "a test image comes out of it with levels that differ"),
        (transformers.CLIPImageProcessorPil(do_center_crop=False), "it crops no square"),
        (transformers.ViTImageProcessorPil(size={"height": 64, "width": 32}), "neither a square nor a shortest_edge"),
        (transformers.ViTImageProcessorPil(do_resize=False), "it does not resize"),
        (transformers.ImageGPTImageProcessorPil(), "ImageGPTImageProcessorPil prepares"),
        (Perceiver(size=SQUARE), "a test image comes out of it with levels that differ"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_said_is_refused(processor: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocessing_of(processor)


@pytest.mark.parametrize("options", [{"do_normalize": False}, {"do_rescale": False}, {"rescale_factor": 1 / 127.5}])
def test_other_scales(options: dict[str, Any]) -> None:
    processor = transformers.ViTImageProcessorPil(size=SQUARE, **options)
    network = as_network(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4)), processor=processor)
    theirs = processor(picture(), return_tensors="pt")["pixel_values"]
    ours = network.normalized(Preprocess(**network.preprocessing)(picture())[None])
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-5, atol=1e-5)


def test_slips(folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"hf:nowhere cannot be made with .*nowhere"):
        load_network("hf:nowhere")
    with pytest.raises(InputError, match="hf: needs a name or a folder"):
        load_network("hf:")
    with pytest.raises(InputError, match="brings its weights"):
        load_network(f"hf:{folder('vit')}", "random")
    with pytest.raises(InputError, match="has no method called from_pretraind"):
        load_network("transformers.AutoModelForImageClassification.from_pretraind", "own")
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in folder("vit").glob("*.*"):
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "preprocessor_config.json").unlink()
    with (
        pytest.warns(UserWarning, match="does not say how its images are normalized"),
        pytest.warns(UserWarning, match="its image processor cannot be read"),
    ):
        load_network(f"hf:{broken}")
    config = json.loads((broken / "config.json").read_text())
    assert config["image_size"] == SIZE
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'vgg-lens\[transformers\]'"):
        load_network("hf:anything")
