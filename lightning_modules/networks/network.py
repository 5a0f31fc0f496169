"""The one class of networks that the rest knows: from pixels in [0, 1] to logits, around a module of anybody's."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.networks.nonlinearities import Nonlinearities
from lightning_modules.networks.observation import observe, observed_nonlinearities
from lightning_modules.networks.torchvision_facts import IMAGENET_MEAN, imagenet_class_names
from lightning_modules.networks.weight_files import first_line

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Network(nn.Module, Generic[ModuleT]):
    """A classifier from pixels in [0, 1] to logits, and what is known of it.

    The module inside stays as it was: no class, attribute, hook or parameter of it changes. The state dict is the
    module's own, under the module's own names. Make one by :func:`as_network` or :func:`load_network`, which look at
    what the module says of itself and at what it does.

    Args:
        module: Maps normalized images to logits.
        mean: Mean of each channel that normalization subtracts, in [0, 1]. None = the module takes pixels as they are.
        std: Standard deviation of each channel that normalization divides by. None = 1.
        class_names: Name of each output, in order.
        input_size: Height and width in pixels of the images that it was trained on.
        resize_size: Length in pixels of an image's shorter side before the crop to ``input_size``.
        interpolation: How images were resized for it: bilinear, bicubic, ...
        target_layer: Where Grad-CAM looks unless told otherwise; None = not known.
        layer_shapes: Shape of each layer's output without the batch, by the layer's name, in the order that they ran.
        fill: What stands for "no information" in a pixel, for each channel. None = ``mean``, or ImageNet's.
        nonlinearities: The activations that an image meets in it. None = they are looked for when they are asked for.

    Shape: ``(N, 3, H, W)`` in [0, 1] -> ``(N, len(class_names))``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: ModuleT,
        *,
        class_names: Sequence[str],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        input_size: int = 224,
        resize_size: int = 256,
        interpolation: str = "bilinear",
        target_layer: str | None = None,
        layer_shapes: Mapping[str, tuple[int, ...]] | None = None,
        fill: Sequence[float] | None = None,
        nonlinearities: Nonlinearities | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.class_names = list(class_names)
        self.input_size = input_size
        self.resize_size = resize_size
        self.interpolation = interpolation
        self.target_layer = target_layer
        self.layer_shapes = dict(layer_shapes or {})
        self._fill = None if fill is None and mean is None else tuple(fill or mean or ())
        if nonlinearities is not None:
            self.nonlinearities = nonlinearities
        self.training = module.training
        like = next(module.parameters(), torch.empty(0))
        for name, values in (("mean", mean or (0.0,) * 3), ("std", std or (1.0,) * 3)):
            buffer = torch.tensor(tuple(values), dtype=like.dtype, device=like.device).view(-1, 1, 1)
            # Not persistent: the state dict stays the module's.
            self.register_buffer(name, buffer, persistent=False)
        self.register_load_state_dict_pre_hook(_names_of_the_inside)

    def forward(self, images: Tensor) -> Tensor:
        return self.module(self.normalized(images))

    def normalized(self, images: Tensor) -> Tensor:
        """What the module gets of pixels: a tensor of its own, which it may write to."""
        return (images - self.mean) / self.std

    @property
    def original(self) -> nn.Module:
        """The module as it was written, also where ``module`` is a compiled one: its layers can be looked at."""
        return _uncompiled(self.module)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """All layers under the module's own names, the outer before the inner ones."""
        return _layers_of(self.original)

    @property
    def name(self) -> str:
        """What messages call it: the class of the module."""
        return type(self.original).__name__

    @property
    def mean_pixel(self) -> Tensor:
        """What stands for "no information" in metrics, ``(3, 1, 1)`` in [0, 1]: the mean that normalization subtracts.

        A module that takes pixels as they are does not say it. Then it is ImageNet's mean, and that is told.
        """
        if self._fill is None:
            warnings.warn(
                f"{self.name} does not say which pixels stand for no information, so scores that take pixels away put "
                "ImageNet's mean there. Say it by as_network(module, mean=..., std=...).",
                stacklevel=2,
            )
        return torch.tensor(self._fill or IMAGENET_MEAN, dtype=self.mean.dtype, device=self.mean.device).view(-1, 1, 1)

    @cached_property
    def nonlinearities(self) -> Nonlinearities:
        """The activations that an image meets on its way to the logits."""
        return observed_nonlinearities(self.original, self.input_size)

    @property
    def layers_with_positions(self) -> dict[str, tuple[int, ...]]:
        """Layers that Grad-CAM can look at, those that give ``(N, C, h, w)`` of several positions: ``(C, h, w)``."""
        shapes = self.layer_shapes.items()
        return {name: shape for name, shape in shapes if len(shape) == 3 and shape[1] * shape[2] > 1}

    @property
    def layer_channels(self) -> dict[str, int]:
        """How many channels each of the innermost layers gives, by its name."""
        layers = self.layers
        inner = {name for name, layer in layers.items() if next(layer.children(), None) is None}
        return {name: shape[0] for name, shape in self.layer_shapes.items() if name in inner}

    def target_layer_for(self, method: str, layer: str | None = None) -> str:
        """The layer that a method looks at: the one that it was given, else the network's own.

        Args:
            method: The method's name, for messages.
            layer: What the method was given; None = nothing.

        Raises:
            InputError: If there is no such layer, or none is known; lists those that it could be.
        """
        layer = layer or self.target_layer
        layers = self.layers
        if layer is not None and layer in layers:
            return layer
        why = f"has no layer {layer!r}" if layer else "does not say which layer to look at (target_layer)"
        near = difflib.get_close_matches(layer or "", layers, n=1)
        why += f". Did you mean {near[0]}?" if near else "."
        known = [f"{at} {c}×{h}×{w}" for at, (c, h, w) in self.layers_with_positions.items()]
        raise InputError(
            f"{method} needs a layer, and {self.name} {why} Name one by {{class_path: {method}, init_args: {{layer: "
            f"...}}}}; layers with positions, the last first: {', '.join(known[:-13:-1])}{', ...' * (len(known) > 12)}."
        )

    def freeze(self) -> Self:
        """Makes the network ready to be explained: eval mode, no parameter gradients, ``channels_last``."""
        return self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own state dict."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the module's own state dict."""
        return self.module.load_state_dict(state_dict, strict, assign)


def _uncompiled(module: nn.Module) -> nn.Module:
    """The module as it was written, of one that ``torch.compile`` made too."""
    inside: Any = getattr(module, "_orig_mod", module)
    return inside


def _layers_of(module: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in module.named_modules() if name}


def _names_of_the_inside(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Renames what :meth:`Network.state_dict` gave, as a part of a larger module's, to where it belongs."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f"{prefix}module.{name.removeprefix(prefix)}"] = state_dict.pop(name)


def as_network(
    module: ModuleT | Network[ModuleT],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    input_size: int | None = None,
    resize_size: int | None = None,
    interpolation: str | None = None,
    target_layer: str | None = None,
    name: str | None = None,
) -> Network[ModuleT]:
    """Makes a network of an instance: of what is said here, of what the module says of itself, and of what it does.

    A module may say of itself, by attributes of these names: ``class_names``, ``input_size``, ``resize_size``,
    ``target_layer``; and, if it takes pixels in [0, 1], by ``mean`` what it subtracts from them. What nobody says is:
    the classes of ImageNet if there are 1,000 outputs, else "0", "1", ...; 224 pixels, cropped from 8/7 of the size; no
    target layer; no normalization. One image of zeros runs through the module to see what it gives.

    Args:
        module: Maps images to logits ``(N, n_classes)``. It is not changed, so it has to be in eval mode to be
            explained. A network is returned as it is.
        mean: Mean of each channel, in [0, 1], that the module's images are normalized by. None = not normalized.
        std: Standard deviation of each channel.
        class_names: Name of each output, in order.
        input_size: Height and width in pixels of the images that it was trained on.
        resize_size: Length in pixels of an image's shorter side before the crop.
        interpolation: How images were resized for it.
        target_layer: Where Grad-CAM looks unless told otherwise.
        name: What messages call it. None = its class.

    Raises:
        InputError: If it does not map an image to logits, or what is said does not fit it.
    """
    given = (mean, std, class_names, input_size, resize_size, interpolation, target_layer)
    inside = _uncompiled(module)
    if isinstance(inside, Network) and inside is not module:
        raise InputError("This is a compiled network. Compile the module inside, or call network.compile() instead.")
    if isinstance(module, Network):
        if any(value is not None for value in given):
            raise InputError("This is a network already: say how images are normalized where it is made.")
        return module
    if (mean is None) != (std is None):
        raise InputError("mean and std belong together: the images are normalized as (image - mean) / std.")

    def said(of: str, here: Any, default: Any = None) -> Any:
        """What is said here, else what the module says of itself, else the default."""
        return here if here is not None else getattr(inside, of, default)

    name = name or type(inside).__name__
    size = int(said("input_size", input_size, 224))
    target_layer = said("target_layer", target_layer)
    layers = _layers_of(inside)
    if target_layer is not None and target_layer not in layers:
        raise InputError(f"model.network: {name} names {target_layer!r} as its target_layer, but has no such.")
    n_classes, layer_shapes, nonlinearities = _observed(inside, layers, size, name)
    default = imagenet_class_names() if n_classes == 1000 else [str(k) for k in range(n_classes)]
    names = list(said("class_names", class_names) or default)
    if len(names) != n_classes:
        raise InputError(f"model.network: {name} has {n_classes} outputs, but {len(names)} class_names.")
    return Network(
        module,
        mean=mean,
        std=std,
        class_names=names,
        input_size=size,
        resize_size=int(said("resize_size", resize_size, round(size * 8 / 7))),
        interpolation=interpolation or "bilinear",
        target_layer=target_layer,
        layer_shapes=layer_shapes,
        fill=None if mean is not None else _mean_of(inside),
        nonlinearities=nonlinearities,
    )


def _observed(
    module: nn.Module, layers: Mapping[str, nn.Module], size: int, name: str
) -> tuple[int, dict[str, tuple[int, ...]], Nonlinearities]:
    """The number of classes, the shapes of the layers' outputs, and the activations.

    Raises:
        InputError: If the module does not map an image to logits.
    """
    try:
        logits, shapes = observe(module, layers, size)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"model.network: {name} fails on an image (3, {size}, {size}): {first_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise InputError(f"model.network: {name} should give logits (N, n_classes), but gives {given}.")
    return logits.shape[1], shapes, observed_nonlinearities(module, size)


def _mean_of(module: nn.Module) -> tuple[float, ...] | None:
    """What a module of pixels says that it subtracts from them, by its attribute ``mean``; None if nothing."""
    mean = getattr(module, "mean", None)
    values = torch.as_tensor(mean).flatten().tolist() if isinstance(mean, Tensor | list | tuple) else []
    return tuple(values) if len(values) == 3 else None
