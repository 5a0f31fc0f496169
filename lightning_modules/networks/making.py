"""From anybody's module to a network: the options that are set for it, and what it shows when it runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from torch import Tensor, nn

from lightning_modules.errors import InputError, check_object
from lightning_modules.networks.class_names import read_class_names
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.libraries.timm import timm_preset
from lightning_modules.networks.libraries.torchvision import imagenet_class_names, torchvision_preset
from lightning_modules.networks.libraries.transformers import transformers_preset
from lightning_modules.networks.network import Network, layers_of, uncompiled
from lightning_modules.networks.observed.facts import layer_named, split_call
from lightning_modules.networks.observed.observation import observe
from lightning_modules.networks.options import NetworkOptions, Preset, resolve_options
from lightning_modules.networks.outputs import output_kind

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@gradients_enabled()
def as_network(
    module: ModuleT | Network[ModuleT],
    *,
    name: str | None = None,
    preset: Preset | None = None,
    processor: Any = None,
    **options: Unpack[NetworkOptions],
) -> Network[ModuleT]:
    """Makes a network of an instance, such as ``as_network(module, mean=..., std=..., class_names=...)``.

    A module may have options as attributes of their names: ``class_names``, ``input_size``, ``resize_size``,
    ``interpolation``, ``crop``, ``target_layer``; and, if it takes pixels in [0, 1], ``mean``, which it subtracts from
    them. torchvision, timm and transformers have options for theirs. The defaults are: the classes of ImageNet if there
    are 1,000 outputs, else "0", "1", ...; 224 pixels, cropped from 8/7 of the size; no target layer; no normalization.
    A few images of noise run through the module to see what it gives.

    Args:
        module: Maps images to logits ``(N, n_classes)``. It is not changed, so it has to be in eval mode to be
            explained. A network is returned as it is. Of a module that was made under ``torch.inference_mode`` a copy
            is taken.
        name: What messages call it. None = its class.
        preset: The options of its library. None = look them up.
        processor: An image processor of transformers', whose sizes, crop and normalization become options. None = that
            which lies beside the weights of a model of transformers'.
        **options: Come before all others, see :class:`~lightning_modules.networks.options.NetworkOptions`.

    Raises:
        InputError: If it does not map an image to logits, or an option does not fit it.
    """
    check_object(nn.Module, "module", module, f"load_network({module!r}) loads one by its name")
    inside = uncompiled(module)
    if isinstance(module, Network):
        if any(value is not None for value in options.values()):
            raise InputError("This is a network already: set its options, such as mean and std, where it is made.")
        return module
    if isinstance(inside, Network):
        raise InputError("This is a compiled network. Compile the module inside, or call network.compile() instead.")
    if any(tensor.is_inference() for tensor in (*inside.parameters(), *inside.buffers())):
        # Made under inference mode, of which autograd keeps nothing.
        module = copy.deepcopy(module)
        inside = uncompiled(module)
    name = name or type(inside).__name__
    preset = preset or torchvision_preset(inside) or timm_preset(inside) or transformers_preset(inside, processor)
    resolved, sources = resolve_options(inside, preset, options)
    layers = layers_of(inside)
    if (layer := resolved.setdefault("target_layer", None)) is not None:
        resolved["target_layer"] = _target_layer(layer, layers, name)
    seen = observe(inside, layers, lambda images: _normalized(images, resolved), resolved["input_size"], name)
    resolved["outputs"] = kind = output_kind(seen.outputs, resolved.get("outputs"), name, seen.ends_in)
    facts = replace(seen.facts, oddities=seen.facts.oddities + (preset.warnings if preset else ()))
    if layer is None and preset is not None:
        # Not a projection inside an attention, which holds less than the norm before it.
        whole = [label for label in facts.with_positions if not isinstance(layers[split_call(label)[0]], nn.Linear)]
        resolved["target_layer"] = next(iter(whole[::-1]), None)
    n_classes = max(seen.outputs.shape[1], 2 if kind in ("probabilities", "binary") else 1)
    if "class_names" not in resolved:
        sources["class_names"] = "nobody"
        resolved["class_names"] = imagenet_class_names() if n_classes == 1000 else [str(k) for k in range(n_classes)]
    resolved["class_names"] = read_class_names(resolved["class_names"])
    if len(resolved["class_names"]) != n_classes:
        raise InputError(
            f"model.network: {name} has {n_classes} outputs, but {len(resolved['class_names'])} class_names."
        )
    return Network(module, facts=facts, options=resolved, sources=sources)


def _normalized(images: Tensor, options: Mapping[str, Any]) -> Tensor:
    """What a module is given of pixels."""
    mean, std = options["mean"] or (0.0,) * 3, options["std"] or (1.0,) * 3
    return (images - images.new_tensor(mean).view(-1, 1, 1)) / images.new_tensor(std).view(-1, 1, 1)


def _target_layer(text: Any, layers: dict[str, nn.Module], name: str) -> str:
    """The whole name of the layer, or of the call of one, that ``text`` names."""
    layer = split_call(text)[0] if isinstance(text, str) else text
    try:
        return layer_named(layer, layers, name) + str(text)[len(str(layer)) :]
    except InputError as error:
        raise InputError(f"model.target_layer: {error}") from error
