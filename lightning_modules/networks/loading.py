"""Networks by their import path: any module from pixels in [0, 1] to logits, and all of torchvision's classifiers."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model_weights, list_models
from torchvision.transforms import InterpolationMode

from lightning_modules.errors import InputError
from lightning_modules.networks.vgg16 import IMAGENET_MEAN, IMAGENET_STD, imagenet_class_names, load_vgg16
from lightning_modules.networks.weight_files import (
    WeightsError,
    check_fit,
    check_tensors,
    download,
    first_line,
    read_tensors,
)

NETWORK_WEIGHTS_HELP = (
    "the name of torchvision's weights for that network (IMAGENET1K_V1, ...), random (as its code makes it from a "
    "seed), own (the same, for a network whose code loads its weights itself), or the path of a state dict"
)


def load_network(
    network: str | Mapping[str, Any] = "vgg16", weights: str | Path = "IMAGENET1K_V1", *, seed: int = 0
) -> Any:
    """Loads a network that maps pixels in [0, 1] to logits, frozen, in eval mode and ``channels_last``.

    Beside the call it has what the rest needs of it: ``class_names``; ``input_size`` and ``resize_size`` in pixels; and
    ``target_layer``, where Grad-CAM looks, or None. A network of the user's says these by attributes of those names;
    without them it has the classes of ImageNet if it has 1,000 outputs, else "0", "1", ...; 224 pixels, cropped from
    8/7 of the size; and no target layer. torchvision's come with the normalization, sizes and classes that its weights
    were trained with, and with the last layer that has positions as their target layer where it is known.

    Args:
        network: ``"vgg16"`` (see :func:`load_vgg16`), or the import path of a class or function that makes a module,
            such as ``"torchvision.models.resnet50"``; with arguments, ``{"class_path": ..., "init_args": {...}}``.
        weights: The name of torchvision's weights for the network, downloaded once, the hash checked each time;
            ``"random"``, as the network's code makes it from the seed; ``"own"``, the same said of a network whose code
            loads its weights itself; or the path of a state dict, read with ``weights_only=True``.
        seed: Seed of what the network's code draws.

    Raises:
        InputError: If there is no such network, or it does not map images to logits.
        WeightsError: If the weights cannot be had; there is no fallback.

    Example:
        >>> network = load_network("torchvision.models.resnet18", "random")
        >>> network.target_layer, network.class_names[281], network(torch.rand(1, 3, 64, 64)).shape
        ('layer4', 'tabby', torch.Size([1, 1000]))
    """
    path, arguments = _specification(network)
    if path == "vgg16":
        if arguments:
            raise InputError("model.network vgg16 takes no init_args; weights says which VGG16 it is.")
        return load_vgg16(weights, seed=seed)
    maker = _find(path)
    entries = _torchvision_weights(maker)
    name = str(weights)
    file = _weights_file(name, path, entries)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _make(maker, path, arguments)
    if file is not None:
        content = read_tensors(file)
        state = check_tensors(file, content.get("state_dict", content))
        check_fit(file, state, module, f"weights of {path}", "They have to be of the network that model.network names.")
        module.load_state_dict(state)
    if entries:
        names = [entry.name for entry in entries]
        entry = entries[
            names.index(name if name in names else "IMAGENET1K_V1" if "IMAGENET1K_V1" in names else names[0])
        ]
        module = _like_trained(module, entry, with_weights=name in names)
    return _complete(module.eval(), path).requires_grad_(False).to(memory_format=torch.channels_last)


def normalized(
    module: nn.Module, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> nn.Module:
    """Makes a network of normalized images one of pixels in [0, 1]; changes ``module`` itself and returns it.

    The names of its layers and parameters stay as they are, so its state dicts still fit.

    Args:
        module: Maps images, normalized channel by channel, to logits.
        mean: Mean of each channel in [0, 1]; ImageNet's unless told otherwise.
        std: Standard deviation of each channel.

    Example:
        >>> images = torch.rand(2, 3, 8, 8)
        >>> torch.equal(normalized(nn.Identity(), (0.5,) * 3, (0.25,) * 3)(images), (images - 0.5) / 0.25)
        True
    """
    # Another class rather than a module around it: that would put a prefix before the name of each layer.
    module.__class__ = type(type(module).__name__, (_Normalized, type(module)), {})
    like = next(module.parameters(), torch.empty(0))
    for name, values in (("pixel_mean", mean), ("pixel_std", std)):
        buffer = torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
        module.register_buffer(name, buffer, persistent=False)
    return module


class _Normalized:
    """Comes before a module's own class."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        return super().forward((images - self.pixel_mean) / self.pixel_std)  # type: ignore[misc]


def candidate_layers(network: nn.Module, size: int) -> dict[str, tuple[int, ...]]:
    """Layers that Grad-CAM can look at, those that give ``(N, C, h, w)`` of several positions: name -> ``(C, h, w)``.

    Args:
        network: Maps images to logits.
        size: Height and width in pixels of an image that it takes.

    Example:
        >>> candidate_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), 8)
        {'0': (4, 6, 6)}
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            shapes[name] = tuple(output.shape[1:])

    _run_with_hooks(network, size, look)
    return shapes


def _run_with_hooks(network: nn.Module, size: int, look: Any) -> Any:
    """The output for an image of zeros; ``look`` is called with the name and output of each module, as they end."""

    def hook(name: str) -> Any:
        return lambda module, args, output: look(name, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    try:
        like = next(network.parameters(), torch.empty(0))
        with torch.no_grad():
            return network(torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype))
    finally:
        for handle in handles:
            handle.remove()


def _specification(network: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(network, str):
        return network, {}
    if set(network) - {"class_path", "init_args"} or "class_path" not in network:
        raise InputError(f"model.network should be an import path, or {{class_path, init_args}}, got {dict(network)}.")
    return str(network["class_path"]), dict(network.get("init_args") or {})


def _find(path: str) -> Any:
    """What stands at an import path.

    Raises:
        InputError: If there is nothing; says which part of the path is wrong.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        hint = f" Did you mean torchvision.models.{path}?" if path in list_models() else ""
        raise InputError(
            f"model.network is {path!r}: neither vgg16 nor an import path such as torchvision.models.resnet50 or "
            f"my_file.MyNet (my_file.py in the folder you work in).{hint}"
        )
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"model.network is {path!r}, but {module_name} cannot be imported: {error}.") from error
    if not callable(getattr(module, name, None)):
        near = difflib.get_close_matches(name, [n for n in dir(module) if callable(getattr(module, n))], n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"model.network is {path!r}, but {module_name} has no network called {name}.{hint}")
    return getattr(module, name)


def _torchvision_weights(maker: Any) -> list[WeightsEnum]:
    """The entries of torchvision's weights for a function of torchvision's; [] for anything else."""
    if not getattr(maker, "__module__", "").startswith("torchvision.models"):
        return []
    try:
        return list(get_model_weights(maker))
    except ValueError:
        return []


def _weights_file(name: str, path: str, entries: Sequence[WeightsEnum]) -> Path | None:
    """The file of the weights; None = as the network's code leaves them."""
    if name in ("random", "own"):
        return None
    for entry in entries:
        if entry.name == name:
            return download(entry)
    file = Path(name).expanduser()
    if not file.is_file():
        known = ", ".join(entry.name for entry in entries)
        has = f"torchvision has {known} for it" if known else "it is not torchvision's, which has weights by name"
        raise WeightsError(
            f"No weights of {path} are called {name!r} ({has}), and there is no such file. Use {NETWORK_WEIGHTS_HELP}."
        )
    return file


def _make(maker: Any, path: str, arguments: dict[str, Any]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            # torchvision's, about the cost of drawing weights for Inception and GoogLeNet.
            warnings.filterwarnings("ignore", message=".*initialization of (Inception|GoogleNet|inception)")
            module = maker(**arguments)
    except TypeError as error:
        raise InputError(f"model.network: {path} cannot be called with {arguments}: {first_line(error)}.") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"model.network: {path} gives a {type(module).__name__}, not an nn.Module.")
    return module


def _like_trained(module: Any, entry: WeightsEnum, with_weights: bool) -> Any:
    """A network of torchvision's with the normalization and sizes that its weights were trained with."""
    preset = entry.transforms()
    for name, value in (("input_size", preset.crop_size[0]), ("resize_size", preset.resize_size[0])):
        setattr(module, name, int(value))
    if with_weights and hasattr(module, "transform_input"):
        module.transform_input = True  # as torchvision sets it for these weights of Inception and GoogLeNet
    if with_weights and preset.interpolation != InterpolationMode.BILINEAR:
        warnings.warn(
            f"{entry} was measured on images resized with {preset.interpolation.value} interpolation; here they are "
            "resized bilinearly, so its accuracy may differ a little from torchvision's.",
            stacklevel=3,
        )
    layers = dict(module.named_modules())
    if "layer4" in layers:  # ResNet and its like
        module.target_layer = "layer4"
    elif type(module).__name__ in ("VGG", "AlexNet"):
        module.target_layer = [name for name, m in layers.items() if name[:9] == "features." and _is_relu(m)][-1]
    elif "features" in layers and not any("permute" in name for name in layers):
        module.target_layer = "features"  # DenseNet, EfficientNet, MobileNet, SqueezeNet, ...
    return normalized(module, preset.mean, preset.std)


def _is_relu(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU)


def _complete(module: Any, path: str) -> Any:
    """Gives a network the attributes that it lacks, and checks what it gives for one image."""
    module.input_size = int(getattr(module, "input_size", 224))
    module.resize_size = int(getattr(module, "resize_size", round(module.input_size * 8 / 7)))
    module.target_layer = getattr(module, "target_layer", None)
    if module.target_layer is not None and module.target_layer not in dict(module.named_modules()):
        raise InputError(f"model.network: {path} names {module.target_layer!r} as its target_layer, but has no such.")
    size = module.input_size
    try:
        logits = _run_with_hooks(module, size, lambda name, output: None)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"model.network: {path} fails on an image (3, {size}, {size}): {first_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"model.network: {path} should give logits (N, n_classes), but gives {given}.")
    n = logits.shape[1]
    names = getattr(module, "class_names", None)
    module.class_names = list(names or (imagenet_class_names() if n == 1000 else map(str, range(n))))
    if len(module.class_names) != n:
        raise InputError(f"model.network: {path} has {n} outputs, but {len(module.class_names)} class_names.")
    return module
