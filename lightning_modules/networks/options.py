"""What a network is: how its images are prepared, what its outputs mean, and who set it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from datamodules.batch import CROPS, INTERPOLATIONS, LONGEST_SIDE
from datamodules.text import Names
from lightning_modules.errors import InputError
from lightning_modules.networks.outputs import OutputKind

PREPROCESSING = ("resize_size", "input_size", "interpolation", "crop")
"""The options that prepare an image: arguments of ``datamodules.Preprocess``."""


class NetworkOptions(TypedDict, total=False):
    """The one record of what a network is. Libraries and modules give theirs, a user's own come before them.

    Args:
        class_names: Name of each class, in the order of the outputs: a list, or a text or JSON file.
        mean: Mean of each channel, in [0, 1], that images are normalized by. null = that of the network's library, or
            no normalization.
        std: Standard deviation of each channel.
        input_size: Height and width in pixels of the images that it was trained on.
        resize_size: Length in pixels of an image's shorter side before the crop. null = no resampling where the image
            has the input size already. own = the network's own.
        interpolation: How images are resized: bilinear, bicubic, ...
        crop: center: the shorter side is resized, the centre cropped. squash: both sides are resized to the input
            size, whatever the proportions; or to ``resize_size``, and the centre cropped. center_floor, squash_floor:
            the same, with the crop where transformers begins it.
        outputs: What the module gives: logits, probabilities (their logarithm is taken), binary (the one logit of
            yes makes two), or independent (the logits of labels of which an image may have several). null = logits,
            unless they look like something else: that is refused.
        target_layer: The layer that class activation maps are made of, unless a method names another.
    """

    class_names: Names | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    input_size: int | None
    resize_size: int | Literal["own"] | None
    interpolation: str | None
    crop: str | None
    outputs: OutputKind | None
    target_layer: str | None


@dataclass(frozen=True)
class Preset:
    """The options that a library has for a network of its own.

    Attributes:
        origin: Where they come from, in words.
        options: The options.
        warnings: Where the project differs from them, or they are in doubt, a sentence each.
    """

    origin: str
    options: NetworkOptions
    warnings: tuple[str, ...] = ()


def resolve_options(
    module: nn.Module, preset: Preset | None, given: NetworkOptions
) -> tuple[dict[str, Any], dict[str, str]]:
    """The options of a network, and who set each: the user, else the module itself, else its library, else nobody.

    Args:
        module: Attributes of the options' names, but for ``mean`` and ``std``, are options.
        preset: Of the module's library; None = none is known.
        given: By the user; None = not set.

    Returns:
        Option -> value, where anybody set it or there is a default; option -> source.

    Raises:
        InputError: If a value cannot be used.
    """
    if (given.get("mean") is None) != (given.get("std") is None):
        raise InputError("mean and std belong together (model.mean, model.std): (image - mean) / std.")
    layers: dict[str, Any] = {
        "nobody": {"input_size": 224, "interpolation": "bilinear", "crop": "center"},
        preset.origin if preset else "": preset.options if preset else {},
        "itself": _own(module),
        "the user": {name: value for name, value in given.items() if not (name == "resize_size" and value == "own")},
    }
    options: dict[str, Any] = {"mean": None, "std": None}
    sources: dict[str, str] = {"mean": "itself" if mean_of(module) else "nobody"}
    for source, layer in layers.items():
        for name, value in layer.items():
            if value is not None or name == "resize_size":
                options[name], sources[name] = value, source
    size = options["input_size"] = _side(options["input_size"], "input_size")
    if options["crop"] in ("squash", "squash_floor") and "the user" == sources["crop"] != sources.get("resize_size"):
        options["resize_size"], sources["resize_size"] = None, "nobody"  # the whole image
    elif "resize_size" not in options:
        options["resize_size"], sources["resize_size"] = round(size * 8 / 7), "nobody"
    elif preset and sources["resize_size"] == preset.origin and sources["input_size"] == "the user":
        # A crop of another size is as large a part of the image.
        theirs: Any = preset.options
        options["resize_size"] = math.floor(size * theirs["resize_size"] / theirs["input_size"])
    if options["resize_size"] is not None:
        options["resize_size"] = _side(options["resize_size"], "resize_size")
    for name, allowed in (("interpolation", INTERPOLATIONS), ("crop", CROPS)):
        if options[name] not in allowed:
            source = "" if sources[name] == "the user" else f" by {sources[name]}"
            raise InputError(f"model.{name} should be one of {', '.join(allowed)}, got {options[name]!r}{source}.")
    _check_normalization(options)
    return options, sources


def mean_of(module: nn.Module) -> tuple[float, ...] | None:
    """What a module of pixels subtracts from them, by its attribute ``mean``; None = it has none of three numbers."""
    mean = getattr(module, "mean", None)
    values = torch.as_tensor(mean).flatten().tolist() if isinstance(mean, Tensor | list | tuple) else []
    return tuple(values) if len(values) == 3 else None


def _own(module: nn.Module) -> dict[str, Any]:
    """The options that a module has as attributes."""
    names = ("class_names", "target_layer", *PREPROCESSING)
    own = {name: getattr(module, name, None) for name in names}
    if not isinstance(own["crop"], str):  # a number of somebody's own
        del own["crop"]
    return {k: v for k, v in own.items() if v is not None and not isinstance(v, nn.Module) and not callable(v)}


def _side(value: Any, option: str) -> int:
    """The side in pixels of a square, which may be written as ``224``, ``(224, 224)`` or ``(3, 224, 224)``."""
    sides = list(value)[-2:] if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= LONGEST_SIDE for side in sides)
    if not sides or not whole or len(set(sides)) > 1:
        raise InputError(
            f"model.{option} should be the side of a square in whole pixels, from 1 to {LONGEST_SIDE:,}, got {value!r}."
        )
    return int(sides[0])


def _check_normalization(options: dict[str, Any]) -> None:
    mean, std = options["mean"], options["std"]
    if mean is None:
        return
    for option, values in (("mean", mean), ("std", std)):
        if isinstance(values, str) or len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise InputError(f"model.{option} should be three numbers, one a channel, got {values!r}.")
        options[option] = tuple(values)
    if not all(0 <= value <= 1 for value in mean):
        raise InputError(f"model.mean is that of pixels in [0, 1], got {list(mean)}. Divide those of 0 to 255 by 255.")
    if not all(0 < value <= 10 for value in std):
        raise InputError(f"model.std is that of pixels in [0, 1], above 0, got {list(std)}. Divide by 255, if need be.")
