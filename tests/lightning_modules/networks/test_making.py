"""What is said of a network: by the user, by itself, by its library; and where nobody says it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.transforms import v2

from datamodules.preprocess import Preprocess
from lightning_modules import (
    GradCAM,
    GuidedBackprop,
    InputError,
    Network,
    Saliency,
    SmoothGrad,
    as_network,
    explain,
    load_network,
)
from tests.lightning_modules.networks.strangers import Small

HERE = "tests.lightning_modules.networks"


def squeezenet() -> nn.Module:
    """A stranger's function that gives a network of torchvision's."""
    return models.squeezenet1_0()


def squeezenet_of_ten() -> nn.Module:
    return models.squeezenet1_0(num_classes=10)


WAYS: dict[str, Any] = {
    "builder": "torchvision.models.squeezenet1_0",
    "get_model": {"class_path": "torchvision.models.get_model", "init_args": {"name": "squeezenet1_0"}},
    "class": {"class_path": "torchvision.models.SqueezeNet", "init_args": {"version": "1_0"}},
    "file of the class": {"class_path": "torchvision.models.squeezenet.SqueezeNet", "init_args": {}},
    "function of one's own": f"{HERE}.test_making.squeezenet",
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_torchvisions_networks_are_known_however_they_are_named(way: str) -> None:
    check_imagenet(load_network(WAYS[way], "random"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [squeezenet, squeezenet_of_ten, lambda: torch.compile(models.squeezenet1_0(), backend="eager")],
    ids=["instance", "of ten classes", "compiled"],
)
def test_instances_of_torchvisions_are_known(make: Any) -> None:
    check_imagenet(as_network(make().eval()))


def check_imagenet(network: Network) -> None:
    assert network.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert network.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    assert network.preprocessing == {
        "resize_size": 256,
        "input_size": 224,
        "interpolation": "bilinear",
        "crop": "center",
    }
    assert network.target_layer == "features"
    assert network.sources["mean"].startswith("torchvision's SqueezeNet1_0_Weights")


@pytest.mark.slow
def test_an_instance_is_told_from_its_likes() -> None:
    """EfficientNets differ in size, interpolation and, V2-L, in normalization."""
    with torch.device("meta"):
        modules = {name: models.get_model(name) for name in ("efficientnet_b3", "efficientnet_v2_l")}
    from lightning_modules.networks.libraries.torchvision import torchvision_preset

    for name, module in modules.items():
        found, expected = torchvision_preset(module), models.get_model_weights(name).DEFAULT.transforms()
        assert found is not None
        assert (found.options["mean"], found.options["input_size"]) == (tuple(expected.mean), expected.crop_size[0])
        assert found.options["resize_size"] == expected.resize_size[0]
        assert found.options["interpolation"] == expected.interpolation.value


@pytest.mark.slow
def test_a_class_derived_from_torchvisions_is_somebody_elses() -> None:
    """It may normalize its images by itself."""

    class Mine(models.SqueezeNet):
        pass

    network = as_network(Mine().eval())
    assert network.sources["mean"] == "nobody"
    assert network.mean.tolist() == [[[0.0]]] * 3


@pytest.mark.parametrize("size", [None, 96])
def test_timm(size: int | None) -> None:
    said = {} if size is None else {"input_size": size}
    named = {"class_path": "timm.create_model", "init_args": {"model_name": "mobilenetv3_small_050"}}
    network = load_network(named, "random", **said)
    config = timm.data.resolve_model_data_config(network.module)
    transform: Any = timm.data.create_transform(**config)
    assert network.mean.flatten().tolist() == pytest.approx(config["mean"])
    assert network.std.flatten().tolist() == pytest.approx(config["std"])
    assert network.options["interpolation"] == config["interpolation"] == "bicubic"
    assert network.input_size == (size or 224)
    resize = transform.transforms[0].size
    # Another size is a crop of as large a part of the image.
    assert network.options["resize_size"] == (resize if size is None else int(size * resize / 224))


@pytest.mark.parametrize(
    ("crop_mode", "crop_pct"), [("center", 0.875), ("squash", 1.0), ("squash", 0.9), ("border", 0.9)]
)
def test_timm_prepares_the_same_image(crop_mode: str, crop_pct: float) -> None:
    """To the bit, but for the last one's rounding: timm's own evaluation of a picture."""
    config = {"crop_mode": crop_mode, "crop_pct": crop_pct}
    module = timm.create_model("mobilenetv3_small_050", pretrained_cfg_overlay=config).eval()
    if crop_mode == "border":
        with pytest.raises(
            InputError, match=r"model.crop should be one of .*, got 'border' by timm's pretrained_cfg of"
        ):
            as_network(module)
        return
    network = as_network(module)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = timm.data.create_transform(**timm.data.resolve_model_data_config(module))(image)
    prepared = Preprocess(**network.preprocessing)(image)
    torch.testing.assert_close(network.normalized(prepared), expected, rtol=0, atol=1e-6)


class TestSaid:
    def test_the_user_before_all_others(self) -> None:
        said: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": 64, "interpolation": "bicubic"}
        network = load_network("torchvision.models.squeezenet1_0", "random", **said, resize_size=70, crop="squash")
        assert network.mean.flatten().tolist() == [0.5] * 3
        assert network.preprocessing == {
            "resize_size": 70,
            "input_size": 64,
            "interpolation": "bicubic",
            "crop": "squash",
        }
        assert {network.sources[name] for name in ("mean", "input_size", "resize_size")} == {"the user"}

    def test_no_resampling(self) -> None:
        assert (
            load_network("torchvision.models.squeezenet1_0", "random", resize_size=None).options["resize_size"] is None
        )
        assert load_network("vgg16", "shapes", resize_size=None).options["resize_size"] is None
        assert load_network("vgg16", "shapes").options["resize_size"] == 128

    def test_a_crop(self) -> None:
        """Of which nothing is cut away, unless the size before the crop is set too."""
        network = load_network("torchvision.models.squeezenet1_0", "random", crop="squash")
        assert (network.resize_size, network.sources["crop"]) == (None, "the user")
        with pytest.raises(InputError, match=r"model.crop should be one of center, .*, got 'whole'"):
            load_network("vgg16", "shapes", crop="whole")

    def test_of_vgg16(self) -> None:
        network = load_network("vgg16", "shapes", mean=(0.5,) * 3, std=(0.5,) * 3, class_names=list("abcdefgh"))
        assert network.mean.flatten().tolist() == [0.5] * 3
        assert network.class_names == list("abcdefgh")

    def test_where_nobody_says_it_it_is_told(self) -> None:
        with pytest.warns(UserWarning, match=r"Small does not say how its images are normalized: it gets pixels"):
            network = load_network(f"{HERE}.strangers.Small", "random", input_size=16)
        assert network.sources["mean"] == "nobody"

    @pytest.mark.filterwarnings("error")
    def test_one_that_says_what_it_subtracts_is_believed(self) -> None:
        load_network(f"{HERE}.test_making.SaysItsMean", "random")

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"mean": (0.5,) * 3}, "mean and std belong together"),
            ({"mean": (124, 116, 104), "std": (58, 57, 57)}, r"pixels in \[0, 1\], got .* Divide those of 0 to 255"),
            ({"mean": (0.5,) * 3, "std": (58, 57, 57)}, r"model\.std is that of pixels in \[0, 1\]"),
            ({"mean": (0.5,) * 3, "std": (0.5, 0, 0.5)}, r"model\.std is that of pixels in \[0, 1\], above 0"),
            ({"mean": (0.5,), "std": (0.5,)}, r"model\.mean should be three numbers, one a channel"),
            ({"mean": (float("nan"),) * 3, "std": (0.5,) * 3}, r"model\.mean should be three numbers"),
            ({"interpolation": "cubic"}, r"model\.interpolation should be one of nearest, bilinear, bicubic"),
            ({"resize_size": 0}, r"model\.resize_size should be the side of a square"),
            ({"class_names": ["a", "b"]}, "has 4 outputs, but 2 class_names"),
        ],
    )
    def test_what_cannot_be(self, said: dict[str, Any], message: str) -> None:
        with pytest.raises(InputError, match=message):
            as_network(Small().eval(), **{"input_size": 16, **said})

    def test_a_size_that_the_network_does_not_take(self) -> None:
        vit = models.VisionTransformer(image_size=32, patch_size=8, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8)
        with pytest.raises(InputError, match=r"image \(3, 40, 40\): .*Expected 32 but got 40.*model\.input_size"):
            as_network(vit.eval(), input_size=40)

    def test_half_precision_is_computed_in_float32(self) -> None:
        with pytest.warns(UserWarning, match=r"weights of .* are torch\.bfloat16; all is computed in float32"):
            network = load_network(f"{HERE}.test_making.half", "random", input_size=16)
        assert network(torch.rand(1, 3, 16, 16)).dtype == torch.float32


class SaysItsMean(Small):
    mean = (0.5, 0.5, 0.5)
    input_size = 16


def half() -> nn.Module:
    return SaysItsMean().bfloat16()


@pytest.mark.photos
@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_predictions_of_photos_are_torchvisions(
    way: str, photos: Path, squeezenet_weights: Path, plain_squeezenet: nn.Module
) -> None:
    """With real weights, if there are some beside the photos: the same class of each photo, by every name."""
    preset = models.SqueezeNet1_0_Weights.IMAGENET1K_V1.transforms()
    network = load_network(WAYS[way], squeezenet_weights)
    prepare = Preprocess(**network.preprocessing)
    files = sorted(photos.rglob("*.*"))[:: 1 if way == "builder" else 14]
    images = [v2.functional.to_pil_image(torchvision.io.decode_image(str(file), "RGB")) for file in files]
    with torch.inference_mode():
        expected = plain_squeezenet(torch.stack([preset(image) for image in images]))
        found = network(torch.stack([prepare(image) for image in images]))
    assert torch.equal(found.argmax(1), expected.argmax(1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


class Stranger(LightningModule):
    """Makes networks within Lightning's loops."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Small().eval()
        self.maps: list[Tensor] = []

    def test_step(self, images: Tensor) -> None:
        torch.manual_seed(0)
        inside = as_network(Small().eval(), input_size=32, target_layer="body")
        for network in (as_network(self.model, input_size=32, target_layer="body"), inside):
            self.maps += explain(network, images, [GradCAM(), GuidedBackprop(), SmoothGrad(2)], 0).values()
        loaded = load_network({"class_path": f"{Small.__module__}.Small"}, "random", **OWN)
        self.maps += explain(loaded, images, [Saliency()], 0).values()

    def predict_step(self, images: Tensor) -> list[Tensor]:
        self.test_step(images)
        return self.maps


OWN: Any = {"input_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.mark.parametrize("inference_mode", [True, False])
@pytest.mark.parametrize("loop", ["test", "predict"])
def test_within_lightnings_loops(loop: str, inference_mode: bool) -> None:
    """Where Lightning lets no gradient be, and of a module that was made there."""
    module, images = Stranger(), torch.rand(1, 3, 32, 32)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", enable_checkpointing=False, inference_mode=inference_mode, **quiet)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        getattr(trainer, loop)(module, DataLoader([images[0]]))  # type: ignore[arg-type]
    within, module.maps = module.maps, []
    module.test_step(images)
    for found, expected in zip(within, module.maps, strict=True):
        assert torch.equal(found, expected)
