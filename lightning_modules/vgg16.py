"""VGG16 as one module from pixels in [0, 1] to logits, and the ways to get its weights."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from lightning_modules.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EMBEDDED_WEIGHTS = Path(__file__).with_name("shapes_vgg16.pth")
WEIGHTS_HELP = (
    "IMAGENET1K_V1 (torchvision's, downloaded once), shapes (the small embedded model), random (seeded, untrained), "
    "or the path of a .pth or .ckpt file"
)


class WeightsError(InputError):
    """The weights asked for cannot be had; the message says why and what to do."""


class VGG16(nn.Module):
    r"""VGG16 (configuration D) from pixels in [0, 1] to logits.

    The names of layers and parameters are torchvision's (``features.29``, ``classifier.6.weight``), so its state dicts
    fit. Unlike torchvision's, the module normalizes its input itself, scales in width, and knows its class names and
    the size of image that it was trained on.

    Args:
        class_names: Name of each output, in order.
        width: Factor on the channels of every convolution; 1 is the paper's.
        hidden_features: Width of the two hidden fully connected layers.
        input_size: Height and width in pixels of the images it was trained on, at least 32.
        resize_size: Length in pixels of an image's shorter side before the crop to ``input_size``.
        batch_norm: Whether a batch norm follows each convolution, as training from scratch needs it.

    Shape: ``(N, 3, H, W)`` in [0, 1] -> ``(N, len(class_names))``.

    Raises:
        InputError: If ``input_size`` is below 32.

    Reference: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """

    target_layer = "features.29"
    """The last ReLU of the features: where Grad-CAM looks unless told otherwise."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        width: float = 1.0,
        hidden_features: int = 4096,
        input_size: int = 224,
        resize_size: int = 256,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if input_size < 32:
            raise InputError(f"input_size must be at least 32 pixels, got {input_size}.")
        self.class_names = list(class_names)
        self.width = width
        self.hidden_features = hidden_features
        self.input_size = input_size
        self.resize_size = resize_size
        self.batch_norm = batch_norm
        channels = [v if isinstance(v, str) else max(1, int(v * width)) for v in cfgs["D"]]
        grid = input_size // 32
        self.features = make_layers(channels, batch_norm=batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d((grid, grid))
        self.classifier = nn.Sequential(
            nn.Linear(int(channels[-2]) * grid * grid, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden_features, hidden_features),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(hidden_features, len(self.class_names)),
        )
        # Not persistent: the state dict stays torchvision's.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))

    def description(self) -> dict[str, Any]:
        """The constructor's arguments, as plain values: ``VGG16(**network.description())`` has the same layout."""
        names = ("class_names", "width", "hidden_features", "input_size", "resize_size", "batch_norm")
        return {name: getattr(self, name) for name in names}

    def initialize(self, seed: int) -> VGG16:
        """Draws all weights anew, from ``seed`` alone, as He et al. (ICCV 2015) do for ReLUs; returns ``self``.

        The last layer begins near zero, so that training starts from even probabilities. (torchvision's fixed deviation
        of 0.01 for the whole classifier suits 4,096 hidden units; narrower ones learn very slowly from it.)
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.get_parameter("classifier.6.weight"), 0, 0.01, generator=generator)
        return self

    def freeze(self) -> VGG16:
        """Makes the network ready to be explained: eval mode, no parameter gradients, ``channels_last``."""
        return self.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def load_vgg16(weights: str | Path = "IMAGENET1K_V1", *, seed: int = 0) -> VGG16:
    """Loads a VGG16 that maps pixels in [0, 1] to logits, frozen, in eval mode and ``channels_last``.

    Args:
        weights: ``"IMAGENET1K_V1"`` (torchvision's, downloaded once, its hash checked each time), ``"shapes"`` (the
            embedded model), ``"random"`` (full size, untrained), or the path of a ``.pth`` in torchvision's layout or
            of a ``.pth`` or ``.ckpt`` that ``train_classifier.py`` wrote. Files are read with ``weights_only=True``.
        seed: Seed of the ``"random"`` weights; unused otherwise.

    Raises:
        WeightsError: If the weights cannot be had; there is no fallback.

    Example:
        >>> network = load_vgg16("shapes")
        >>> network(torch.rand(2, 3, 112, 112)).shape
        torch.Size([2, 8])
    """
    name = str(weights)
    if name == "random":
        return VGG16(imagenet_class_names()).initialize(seed).freeze()
    if name == "shapes":
        return _from_file(EMBEDDED_WEIGHTS)
    if name == "IMAGENET1K_V1":
        return _from_file(_download(VGG16_Weights.IMAGENET1K_V1))
    if name in VGG16_Weights.__members__:
        raise WeightsError(
            f"The weights {name} are of the features alone: their classifier is NaN, so they predict nothing. "
            "Use IMAGENET1K_V1."
        )
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"No weights are called {name!r}, and there is no such file. Use {WEIGHTS_HELP}.")
    return _from_file(path)


def save_vgg16(network: VGG16, path: str | Path) -> None:
    """Writes a file that :func:`load_vgg16` reads: the weights with the architecture, class names and input size."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    torch.save({"vgg16": network.description(), "state_dict": state}, path)


def fold_batch_norm(network: VGG16) -> VGG16:
    """A plain VGG16 that computes what ``network`` computes in eval mode, its batch norms folded into the convolutions.

    Returns ``network`` itself if it has none.
    """
    if not network.batch_norm:
        return network
    folded = VGG16(**{**network.description(), "batch_norm": False})
    norms = [(a, b) for a, b in zip(network.features, list(network.features)[1:]) if isinstance(b, nn.BatchNorm2d)]
    convolutions = [module for module in folded.features if isinstance(module, nn.Conv2d)]
    for target, (convolution, norm) in zip(convolutions, norms, strict=True):
        target.load_state_dict(fuse_conv_bn_eval(convolution.eval(), norm.eval()).state_dict())
    folded.classifier.load_state_dict(network.classifier.state_dict())
    return folded


def imagenet_class_names() -> list[str]:
    """The 1,000 class names of ImageNet as torchvision's weights carry them, in the order of the outputs."""
    return list(VGG16_Weights.IMAGENET1K_V1.meta["categories"])


def _download(entry: VGG16_Weights) -> Path:
    """The local file of torchvision's weights, downloaded if need be, its SHA-256 checked against the file's name."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(entry.url).path).name)
    if not path.exists():
        try:
            entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except URLError as error:
            raise WeightsError(
                f"{entry.name} could not be downloaded from {entry.url} ({error.reason}). Without a network, fetch "
                f"that file elsewhere and put it at {path}, or pass its path as the weights."
            ) from error
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"{entry.name} could not be downloaded to {path}: {error}") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    expected = path.stem.rpartition("-")[2]
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} is damaged or not what its name says: its SHA-256 begins with {digest[: len(expected)]}, not "
            f"{expected}. Delete it; it is then downloaded again."
        )
    return path


def _from_file(path: Path) -> VGG16:
    description, state = _read(path)
    try:
        network = VGG16(**description) if description else VGG16(imagenet_class_names())
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path} describes a VGG16 that cannot be built: {_first_line(error)}") from error
    _check_state(path, state, network)
    network.load_state_dict(state)
    return fold_batch_norm(network.eval()).freeze()


def _read(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The description of the architecture (empty in a bare state dict) and the state dict that a file holds."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of tensors alone, or it is damaged: {_first_line(error)} It was not executed. If "
            "you trust it, save its state dict anew: torch.save(model.state_dict(), 'new.pth')."
        ) from error
    except Exception as error:  # torch.load raises whatever the bytes provoke: EOFError, KeyError, RuntimeError, ...
        raise WeightsError(f"{path} is not a PyTorch file, or it is damaged: {_first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    description = content.get("vgg16", {})
    state = content.get("state_dict", content) if description else content
    if not description and "state_dict" in content:
        raise WeightsError(
            f"{path} is a checkpoint of something else: it does not say which VGG16 it holds. Checkpoints of "
            "train_classifier.py do; from another source, save the bare state dict in torchvision's layout."
        )
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} is not a state dict: it should map names such as features.0.weight to tensors.")
    # A LightningModule's checkpoint holds the network under its attribute's name.
    return description, {name.removeprefix("network."): tensor for name, tensor in state.items()}


def _check_state(path: Path, state: Mapping[str, Tensor], network: VGG16) -> None:
    """Refuses a state dict that does not fit ``network`` in every name and shape, or that is not finite."""
    expected = network.state_dict()
    problems = []
    if missing := [name for name in expected if name not in state]:
        problems.append(f"missing: {_some(missing)}")
    if surplus := [name for name in state if name not in expected]:
        problems.append(f"surplus: {_some(surplus)}")
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ][:3]
    if problems:
        raise WeightsError(
            f"{path} does not hold a VGG16 of {len(network.class_names)} classes in torchvision's layout; "
            + "; ".join(problems)
            + ". Only checkpoints of train_classifier.py may have other classes, widths or batch norms."
        )
    if broken := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise WeightsError(
            f"{path} has NaN or infinite weights in {_some(broken)}. torchvision's IMAGENET1K_FEATURES file is like "
            "that: it has no usable classifier. Use IMAGENET1K_V1."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
