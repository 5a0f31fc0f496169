"""transformers' image classifiers: their weights, classes, normalization, and how their processors prepare an image."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import nn

from lightning_modules.errors import InputError, described
from lightning_modules.networks.options import NetworkOptions, Preset

PREFIX = "hf:"
"""How the name of a model, or a folder of one, begins as ``model.network``."""

INSTALL = "pip install 'vgg-lens[transformers]'"

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters, by their numbers."""


def image_classifier(name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes the image classifier of a name on the hub, or of a folder; and its arguments.

    Raises:
        InputError: If transformers is not installed, or no name is given.
    """
    if not name:
        raise InputError(
            f"model.network {PREFIX} needs a name or a folder, such as {PREFIX}google/vit-base-patch16-224."
        )
    return _transformers().AutoModelForImageClassification.from_pretrained, {"pretrained_model_name_or_path": name}


def checked_pretrained(maker: Callable[..., Any]) -> Callable[..., Any]:
    """``from_pretrained`` of one of transformers' classes, which then refuses weights that its file lacks.

    By itself it draws them at random and says so in a log: so a backbone becomes a classifier that knows nothing. Any
    other function is given back as it is.
    """
    owner = getattr(maker, "__self__", None)
    theirs = inspect.isclass(owner) and owner.__module__.startswith("transformers.")
    if not theirs or maker.__name__ != "from_pretrained":
        return maker

    def load(**arguments: Any) -> nn.Module:
        module, info = maker(**arguments, output_loading_info=True)
        drawn = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
        if drawn:
            name = arguments.get("pretrained_model_name_or_path")
            raise InputError(
                f"model.network: the weights of {name} lack {', '.join(drawn[:4])}{', ...' * (len(drawn) > 4)}, which "
                f"transformers draws at random: it is no {type(module).__name__} that was trained. Take one that was "
                "fine-tuned to classify images."
            )
        return module

    return load


def transformers_preset(module: nn.Module, processor: Any = None) -> Preset | None:
    """The options of an image classifier of transformers', by its configuration and its image processor.

    Args:
        module: The model.
        processor: Its image processor. None = that which lies beside its weights, if there is one.

    Returns:
        None for any other module without a processor.

    Raises:
        InputError: If the processor prepares images in a way that these options cannot say.
    """
    theirs = any(base.__module__ == "transformers.modeling_utils" for base in type(module).__mro__)
    if not theirs and processor is None:
        return None
    options: dict[str, Any] = {}
    warnings = []
    config: Any = getattr(module, "config", None)
    if theirs and (names := _class_names(config)):
        options["class_names"] = names
    name = getattr(module, "name_or_path", "") if theirs else ""
    if processor is None and name:
        try:
            processor = _transformers().AutoImageProcessor.from_pretrained(name, backend="pil")
        except (OSError, ValueError) as error:
            warnings += [f"its image processor cannot be read: {described(error).rstrip('.')}"]
    if processor is not None:
        options |= preprocessing_of(processor)
    elif isinstance(size := getattr(config, "image_size", None), int):
        options["input_size"] = size
    origin = f"transformers' {name or type(processor or module).__name__}"
    return Preset(origin, cast(NetworkOptions, options), tuple(warnings))


def preprocessing_of(processor: Any) -> dict[str, Any]:
    """What an image processor does, as options of a network: sizes, crop, interpolation, normalization.

    Raises:
        InputError: If it does something else: a test image comes out otherwise.
    """
    name = type(processor).__name__
    known = {key: value for key, value in processor.to_dict().items() if value is not None}
    flags = ("do_flip_channel_order", "rescale_offset", "do_pad", "do_color_quantize", "do_thumbnail")
    if wrong := [flag for flag in flags if known.get(flag)]:
        raise _refused(name, f"{wrong[0]} is set")
    size, crop = _sides(known.get("size")), _sides(known.get("crop_size") if known.get("do_center_crop") else None)
    short, pct = size.get("shortest_edge"), known.get("crop_pct")
    if not known.get("do_resize", True):
        raise _refused(name, "it does not resize, so its images have any size")
    resized: Any
    if short and pct:  # ConvNeXt's
        resized, cropped, way = (int(short / pct), short, "center") if short < 384 else (short, short, "squash")
    else:
        height, width = size.get("height"), size.get("width")
        if not short and (not height or height != width):
            raise _refused(name, f"its size is {size or 'not known'}, neither a square nor a shortest_edge")
        resized, way = (short, "center") if short else (height, "squash")
        cropped = crop.get("height", resized if way == "squash" else 0)
        if not cropped or crop.get("width", cropped) != cropped:
            raise _refused(name, "it crops no square, so its images have any size")
    factor = 255 * known.get("rescale_factor", 1 / 255) if known.get("do_rescale", True) else 255
    normalizes = known.get("do_normalize", True)
    mean, std = (
        tuple(np.broadcast_to(known[key] if normalizes and key in known else default, 3).astype(float).tolist())
        for key, default in (("image_mean", 0.0), ("image_std", 1.0))
    )
    options = {
        "mean": tuple(value / factor for value in mean),
        "std": tuple(value / factor for value in std),
        "resize_size": resized,
        "input_size": cropped,
        "interpolation": _RESAMPLE[int(known.get("resample", 2))],
        "crop": f"{way}_floor",
    }
    _check_on_ramps(processor, options)
    return options


def _check_on_ramps(processor: Any, options: dict[str, Any]) -> None:
    """Refuses a processor that shows another part of an image, or other colours, than the options say.

    Red rises from left to right, green from top to bottom, and blue is even, so each pixel tells where it is from.
    """
    height, width, size = 150, 211, options["input_size"]
    ramps = np.empty((height, width, 3), np.uint8)
    ramps[..., 0], ramps[..., 1], ramps[..., 2] = np.arange(width), np.arange(height)[:, None], 240
    name = type(processor).__name__
    try:
        seen = np.asarray(processor(Image.fromarray(ramps), return_tensors="np")["pixel_values"], np.float64)
    except Exception as error:  # a stranger's code raises anything
        raise _refused(name, f"it fails on an image: {described(error)}") from error
    if seen.shape != (1, 3, size, size):
        raise _refused(name, f"it makes {seen.shape} of an image, not (1, 3, {size}, {size})")
    levels = 255 * (seen[0] * np.reshape(options["std"], (3, 1, 1)) + np.reshape(options["mean"], (3, 1, 1)))
    resized, expected = options["resize_size"], np.full((3, size, size), 240.0)
    short = min(height, width)
    for k, side in enumerate((width, height)):
        new = resized if options["crop"].startswith("squash") else int(resized * side / short)
        positions = (np.arange(size) + (new - size) // 2 + 0.5) * side / new - 0.5
        expected[k] = positions if k == 0 else positions[:, None]
    # The resize mixes in what lies beside a pixel; at the borders there is less of it.
    inner = slice(size // 8, size - size // 8)
    difference = np.abs(levels - expected)[:, inner, inner].max()
    if not difference <= 2:
        raise _refused(name, f"a test image comes out of it with levels that differ by {difference:.0f} of 255")


def _refused(name: str, why: str) -> InputError:
    return InputError(
        f"model.network: how {name} prepares images cannot be said by model.resize_size, input_size, crop, "
        f"interpolation, mean and std: {why.rstrip('.')}. Prepare the images before, or wrap model and processor in a "
        "module of pixels."
    )


def _sides(size: Any) -> dict[str, int]:
    """``{"height": ..., "width": ...}`` or ``{"shortest_edge": ...}``, without what is None."""
    pairs = dict(size).items() if size is not None and not isinstance(size, int) else ()
    return {side: value for side, value in pairs if value is not None}


def _class_names(config: Any) -> list[str] | None:
    """The names of the classes; None = it only numbers them."""
    names = getattr(config, "id2label", None) or {}
    ordered = [str(names[key]) for key in sorted(names, key=int)]
    return None if all(re.fullmatch(r"LABEL_\d+", name) for name in ordered) else ordered


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise InputError(f"Networks of transformers need it installed: {INSTALL}.") from error
    return transformers
