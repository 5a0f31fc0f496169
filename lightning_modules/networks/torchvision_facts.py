"""What torchvision says of its own networks: weights, normalization, sizes, classes, and where Grad-CAM looks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn
from torchvision.models import VGG16_Weights, WeightsEnum, get_model_weights
from torchvision.transforms import InterpolationMode

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def imagenet_class_names() -> list[str]:
    """The 1,000 class names of ImageNet as torchvision's weights carry them, in the order of the outputs."""
    return list(VGG16_Weights.IMAGENET1K_V1.meta["categories"])


def weights_of(maker: Any) -> list[WeightsEnum]:
    """The entries of torchvision's weights for a function of torchvision's; [] for anything else."""
    if not getattr(maker, "__module__", "").startswith("torchvision.models"):
        return []
    try:
        return list(get_model_weights(maker))
    except ValueError:
        return []


def facts_of(module: nn.Module, entries: Sequence[WeightsEnum], weights: str) -> dict[str, Any]:
    """What :func:`as_network` is to be told of a network of torchvision's.

    Args:
        module: The network.
        entries: Its weights' entries, at least one.
        weights: The name of the one that was loaded; any other text if none was.
    """
    names = [entry.name for entry in entries]
    with_weights = weights in names
    like = weights if with_weights else "IMAGENET1K_V1" if "IMAGENET1K_V1" in names else names[0]
    entry = entries[names.index(like)]
    preset: Any = entry.transforms()
    if with_weights and preset.interpolation != InterpolationMode.BILINEAR:
        warnings.warn(
            f"{entry} was measured on images resized with {preset.interpolation.value} interpolation; here they are "
            "resized bilinearly, so its accuracy may differ a little from torchvision's.",
            stacklevel=3,
        )
    return {
        "mean": preset.mean,
        "std": preset.std,
        "input_size": preset.crop_size[0],
        "resize_size": preset.resize_size[0],
        "interpolation": preset.interpolation.value,
        "target_layer": _target_layer(module),
    }


def _target_layer(module: nn.Module) -> str | None:
    """The last layer that has positions, where it is known."""
    layers = dict(module.named_modules())
    if "layer4" in layers:  # ResNet and its like
        return "layer4"
    if type(module).__name__ in ("VGG", "AlexNet"):
        return [name for name, m in layers.items() if name[:9] == "features." and isinstance(m, nn.ReLU)][-1]
    if "features" in layers and not any("permute" in name for name in layers):
        return "features"  # DenseNet, EfficientNet, MobileNet, SqueezeNet, ...
    return None
