"""torchvision's networks: their weights, normalization, sizes, classes, and the layer of Grad-CAM."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn
from torchvision import models
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_builder, get_model_weights, list_models

from lightning_modules.networks.options import Preset

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_class_names() -> list[str]:
    """The 1,000 class names of ImageNet as torchvision's weights carry them, in the order of the outputs."""
    return list(VGG16_Weights.IMAGENET1K_V1.meta["categories"])


def builder_of(maker: Any, arguments: Mapping[str, Any]) -> Any:
    """torchvision's builder that is meant: of ``get_model``, the one that its arguments name; else ``maker`` itself."""
    if maker is models.get_model and isinstance(name := arguments.get("name"), str) and name in list_models():
        return get_model_builder(name)
    return maker


def weights_of(maker: Any) -> list[WeightsEnum]:
    """The entries of torchvision's weights for what makes one of its classifiers; [] for anything else."""
    if getattr(maker, "__name__", "") not in list_models(module=models):
        return []
    return list(get_model_weights(maker)) if get_model_builder(maker.__name__) is maker else []


def named_entry(entries: Sequence[WeightsEnum], *names: Any) -> WeightsEnum | None:
    """The entry that the first of ``names`` means that means one: by its name, or that of torchvision's file."""
    for name in map(str, names):
        for entry in entries:
            if name.rpartition(".")[2] == entry.name or Path(name).name == Path(urlparse(entry.url).path).name:
                return entry
    return None


def torchvision_preset(
    module: nn.Module, entries: Sequence[WeightsEnum] = (), entry: WeightsEnum | None = None
) -> Preset | None:
    """The options of a network of torchvision's; None for any other module.

    Args:
        module: The network. A class derived from torchvision's is somebody else's.
        entries: The weights that there are for it, if it is known what made it.
        entry: That of the weights that it has; None = not known. It is then taken as if its weights were the first.
    """
    if not type(module).__module__.startswith("torchvision.models."):
        return None
    entries = list(entries) or weights_of(_builder_of_instance(module))
    if not entries:
        return None
    like = entry or next((each for each in entries if each.name == "IMAGENET1K_V1"), entries[0])
    others = [each.name for each in entries if _preprocessing(each) != _preprocessing(like)]
    doubt = (
        f"images are prepared as for {like}; those of {', '.join(others)} are prepared otherwise: if it has those "
        "weights, set model.resize_size, model.input_size and model.interpolation"
    )
    options: Any = {**_preprocessing(like), "target_layer": _target_layer(module)}
    return Preset(f"torchvision's {like}", options, (doubt,) if entry is None and others else ())


def _preprocessing(entry: WeightsEnum) -> dict[str, Any]:
    transforms: Any = entry.transforms()
    return {
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
        "input_size": transforms.crop_size[0],
        "resize_size": transforms.resize_size[0],
        "interpolation": transforms.interpolation.value,
    }


def _builder_of_instance(module: nn.Module) -> Callable[..., nn.Module] | None:
    """The function of torchvision's that makes such a module, but for the number of its classes; None = none does."""
    file = sys.modules[type(module).__module__]
    names = [name for name in list_models(module=models) if get_model_builder(name).__module__ == file.__name__]
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    for name in names:
        with torch.device("meta"):
            other = get_model_builder(name)(weights=None)
        theirs = {name: tensor.shape for name, tensor in other.state_dict().items() if ".aux" not in f".{name}"}
        # The last layer's weight and bias are those of its classes.
        if theirs.keys() <= shapes.keys() and sum(shapes[at] != shape for at, shape in theirs.items()) <= 2:
            return get_model_builder(name)
    return None


def _target_layer(module: nn.Module) -> str | None:
    """Where Grad-CAM looks; None = the last layer that has positions."""
    layers = dict(module.named_modules())
    if "layer4" in layers:  # ResNet and its like
        return "layer4"
    if type(module).__name__ in ("VGG", "AlexNet"):
        return [name for name, m in layers.items() if name[:9] == "features." and isinstance(m, nn.ReLU)][-1]
    if isinstance(module, models.VisionTransformer):
        # Behind the last attention, only the class token reaches the logits.
        return [name for name in layers if name.endswith(".ln_1")][-1]
    return "features" if "features" in layers else None  # DenseNet, EfficientNet, MobileNet, Swin, ...
