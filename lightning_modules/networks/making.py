"""From a module of anybody's to a network: what is said of it, here, by itself or by its library, and what it does."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from datamodules.batch import INTERPOLATIONS, LONGEST_SIDE
from datamodules.text import Names
from lightning_modules.errors import InputError, check_object
from lightning_modules.networks.class_files import read_class_names
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.libraries.presets import Preset
from lightning_modules.networks.libraries.timm_facts import timm_preset
from lightning_modules.networks.libraries.torchvision_facts import imagenet_class_names, torchvision_preset
from lightning_modules.networks.network import Network, layers_of, uncompiled
from lightning_modules.networks.observed.facts import layer_named, place
from lightning_modules.networks.observed.observation import observe
from lightning_modules.networks.outputs import OutputKind, check_kind, known_kind

ModuleT = TypeVar("ModuleT", bound=nn.Module)
Size = int | Literal["own"] | None


class Said(TypedDict, total=False):
    """What a user may say of a network; whatever is not said is its own.

    Args:
        class_names: Name of each class, in order: a list, or a text or JSON file.
        mean: Mean of each channel, in [0, 1], that the module's images are normalized by.
        std: Standard deviation of each channel.
        input_size: Height and width in pixels of the images that it was trained on.
        resize_size: Length in pixels of an image's shorter side before the crop. null = no resampling where the image
            has the input size already. own = what the network says.
        interpolation: How images are resized: bilinear, bicubic, ...
        outputs: What the module gives: logits, probabilities (their logarithm is taken), binary (the one logit of
            yes makes two), or independent (the logits of labels of which an image may have several). null = logits,
            unless they look like something else: that is refused.
    """

    class_names: Names | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_size: int | None
    resize_size: Size
    interpolation: str | None
    outputs: OutputKind | None


@gradients_enabled()
def as_network(
    module: ModuleT | Network[ModuleT],
    *,
    class_names: Any = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_size: int | None = None,
    resize_size: Size = "own",
    interpolation: str | None = None,
    outputs: OutputKind | None = None,
    target_layer: str | None = None,
    name: str | None = None,
    preset: Preset | None = None,
) -> Network[ModuleT]:
    """Makes a network of an instance: of what is said here, of what the module says of itself, and of what it does.

    A module may say of itself, by attributes of these names: ``class_names``, ``input_size``, ``resize_size``,
    ``interpolation``, ``target_layer``; and, if it takes pixels in [0, 1], by ``mean`` what it subtracts from them.
    torchvision and timm say it of theirs. What nobody says is: the classes of ImageNet if there are 1,000 outputs, else
    "0", "1", ...; 224 pixels, cropped from 8/7 of the size; no target layer; no normalization. A few images of noise
    run through the module to see what it gives.

    Args:
        module: Maps images to logits ``(N, n_classes)``. It is not changed, so it has to be in eval mode to be
            explained. A network is returned as it is. Of a module that was made under ``torch.inference_mode`` a copy
            is taken.
        class_names: Name of each class, in order.
        mean: Mean of each channel, in [0, 1], that the module's images are normalized by. None = as its library says,
            else not normalized.
        std: Standard deviation of each channel.
        input_size: Height and width in pixels of the images that it was trained on.
        resize_size: Length in pixels of an image's shorter side before the crop; None = no resampling where the image
            has the size already.
        interpolation: How images were resized for it.
        outputs: What the module gives, see :func:`~lightning_modules.networks.outputs.as_logits`. None = logits, unless
            they look like something else.
        target_layer: Where Grad-CAM looks unless told otherwise.
        name: What messages call it. None = its class.
        preset: What its library says. None = look it up.

    Raises:
        InputError: If it does not map an image to logits, or what is said does not fit it.
    """
    check_object(nn.Module, "module", module, f"load_network({module!r}) loads one by its name")
    inside = uncompiled(module)
    if isinstance(module, Network):
        given = (class_names, mean, std, input_size, interpolation, outputs, target_layer)
        if any(value is not None for value in given) or resize_size != "own":
            raise InputError("This is a network already: say how images are normalized where it is made.")
        return module
    if isinstance(inside, Network):
        raise InputError("This is a compiled network. Compile the module inside, or call network.compile() instead.")
    if any(tensor.is_inference() for tensor in (*inside.parameters(), *inside.buffers())):
        # Made under inference mode, of which autograd keeps nothing.
        module = copy.deepcopy(module)
        inside = uncompiled(module)
    name = name or type(inside).__name__
    preset = preset or torchvision_preset(inside) or timm_preset(inside)
    said = _Said(inside, preset)
    mean, std = _normalization(mean, std, preset, said)
    size, resize = _sizes(input_size, resize_size, preset, said)
    check_kind(outputs)
    layers = layers_of(inside)
    target_layer = said("target_layer", target_layer)
    if target_layer is not None:
        target_layer = _target_layer(target_layer, layers, name)
    found = observe(inside, layers, _Normalized(mean, std), size, name)
    kind = known_kind(found.outputs, outputs, name, found.ends_in)
    facts = replace(found.facts, oddities=found.facts.oddities + (preset.oddities if preset else ()))
    if target_layer is None and preset is not None:
        target_layer = next(iter([*facts.with_positions][::-1]), None)
    n_classes = max(found.outputs.shape[1], 2 if kind in ("probabilities", "binary") else 1)
    return Network(
        module,
        class_names=_names(said, class_names, n_classes, name),
        facts=facts,
        mean=mean,
        std=std,
        input_size=size,
        resize_size=resize,
        interpolation=_interpolation(said("interpolation", interpolation, "bilinear")),
        target_layer=target_layer,
        outputs=kind,
        fill=None if mean is not None else _mean_of(inside),
        said_by=said.by,
    )


class _Said:
    """What is said of a module: by the user, else by itself, else by its library, else by nobody.

    Attributes:
        by: Who said it: option -> words.
    """

    def __init__(self, module: nn.Module, preset: Preset | None) -> None:
        self.module, self.preset = module, preset
        self.by: dict[str, str] = {}

    def __call__(self, option: str, here: Any, default: Any = None) -> Any:
        own = getattr(self.module, option, None)
        own = None if isinstance(own, nn.Module) or callable(own) else own
        theirs = getattr(self.preset, option, None)
        origin = self.preset.origin if self.preset else ""
        for value, words in ((here, "the user"), (own, "itself"), (theirs, origin), (default, "nobody")):
            if value is not None:
                self.by[option] = words
                return value
        return None


class _Normalized:
    """Pixels in [0, 1] -> what the module takes."""

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.mean, self.std = mean or (0.0,) * 3, std or (1.0,) * 3

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = (images.new_tensor(tuple(values)).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


def _target_layer(said: Any, layers: Mapping[str, nn.Module], name: str) -> str:
    """The layer, or the call of one, that is said to be the target layer, by its whole name.

    Raises:
        InputError: If there is none.
    """
    layer = place(said)[0] if isinstance(said, str) else said
    try:
        return layer_named(layer, layers, name) + said[len(layer) :]
    except InputError as error:
        raise InputError(f"model.network, target_layer: {error}") from error


def _normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, preset: Preset | None, said: _Said
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and standard deviation by which images are normalized; None = not at all.

    Raises:
        InputError: If they are no such numbers.
    """
    if (mean is None) != (std is None):
        raise InputError("mean and std belong together (model.mean, model.std): (image - mean) / std.")
    if mean is None or std is None:
        said.by["mean"] = preset.origin if preset else "itself" if _mean_of(said.module) else "nobody"
        return (preset.mean, preset.std) if preset else (None, None)
    said.by["mean"] = "the user"
    for option, values in (("mean", mean), ("std", std)):
        if isinstance(values, str) or len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise InputError(f"model.{option} should be three numbers, one a channel, got {values!r}.")
    if not all(0 <= value <= 1 for value in mean):
        raise InputError(f"model.mean is that of pixels in [0, 1], got {list(mean)}. Divide those of 0 to 255 by 255.")
    if not all(0 < value <= 10 for value in std):
        raise InputError(f"model.std is that of pixels in [0, 1], above 0, got {list(std)}. Divide by 255, if need be.")
    return tuple(mean), tuple(std)


def _sizes(input_size: int | None, resize_size: Size, preset: Preset | None, said: _Said) -> tuple[int, int | None]:
    """Side of the images, and length of the shorter side before the crop; None = no resampling.

    Raises:
        InputError: If they are no such numbers.
    """
    size = side(said("input_size", input_size, 224), "input_size")
    if resize_size is None:
        said.by["resize_size"] = "the user"
        return size, None
    resize = said("resize_size", None if resize_size == "own" else resize_size, round(size * 8 / 7))
    if said.by["resize_size"] not in ("the user", "itself") and said.by["input_size"] == "the user" and preset:
        # Another size of crop: of as large a part of the image.
        resize = math.floor(size * preset.resize_size / preset.input_size)
    return size, side(resize, "resize_size")


def side(value: Any, option: str) -> int:
    """The side in pixels of a square, that may be written as ``224``, ``(224, 224)`` or ``(3, 224, 224)``.

    Raises:
        InputError: If it is no square, or no size.
    """
    sides = list(value)[-2:] if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    whole = all(isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= LONGEST_SIDE for each in sides)
    if not sides or not whole or len(set(sides)) > 1:
        raise InputError(
            f"model.{option} should be the side of a square in whole pixels, from 1 to {LONGEST_SIDE:,}, got {value!r}."
        )
    return int(sides[0])


def _interpolation(value: Any) -> str:
    if value not in INTERPOLATIONS:
        raise InputError(f"model.interpolation should be one of {', '.join(INTERPOLATIONS)}, got {value!r}.")
    return str(value)


def _names(said: _Said, here: Any, n_classes: int, name: str) -> list[str]:
    """The names of the classes.

    Raises:
        InputError: If there are more or fewer names than classes.
    """
    default = imagenet_class_names() if n_classes == 1000 else [str(k) for k in range(n_classes)]
    names = read_class_names(said("class_names", here, default))
    if len(names) != n_classes:
        raise InputError(f"model.network: {name} has {n_classes} outputs, but {len(names)} class_names.")
    return names


def _mean_of(module: nn.Module) -> tuple[float, ...] | None:
    """What a module of pixels says that it subtracts from them, by its attribute ``mean``; None if nothing."""
    mean = getattr(module, "mean", None)
    values = torch.as_tensor(mean).flatten().tolist() if isinstance(mean, Tensor | list | tuple) else []
    return tuple(values) if len(values) == 3 else None
