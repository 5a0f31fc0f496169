"""The one class of networks that the rest knows: from pixels in [0, 1] to logits, around a module of anybody's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.networks.compiling import keep_graphs, running_compiled
from lightning_modules.networks.inputs import check_images
from lightning_modules.networks.libraries.torchvision import IMAGENET_MEAN
from lightning_modules.networks.observed.facts import Call, Facts, label_of, last_first
from lightning_modules.networks.observed.layouts import Layout
from lightning_modules.networks.options import PREPROCESSING, mean_of
from lightning_modules.networks.outputs import OutputKind, as_logits, probabilities_of

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Network(nn.Module, Generic[ModuleT]):
    """A classifier from pixels in [0, 1] to logits, and what is known of it.

    The module inside stays as it was: no class, attribute, hook or parameter of it changes. The state dict is the
    module's own, under the module's own names. Make one by :func:`as_network` or :func:`load_network`, which look at
    the module's attributes and at what it does.

    Args:
        module: Maps normalized images to logits.
        facts: What it showed when it ran.
        options: All of :class:`~lightning_modules.networks.options.NetworkOptions`. ``mean`` None = the module takes
            pixels as they are; ``resize_size`` None = images of ``input_size`` stay as they are, and of others the
            shorter side gets that length; ``target_layer`` None = not known.
        sources: Who set an option, in words: option -> source.

    Shape: ``(N, 3, H, W)`` in [0, 1] -> ``(N, len(class_names))``.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, module: ModuleT, *, facts: Facts, options: Mapping[str, Any], sources: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.module = module
        if self.original is not module:
            keep_graphs()
        self.facts = facts
        self.options = dict(options)
        self.sources = dict(sources)
        # Not when it is asked for: the module's own lies on its device, which would be waited for.
        self._mean = self.options["mean"] or mean_of(self.original)
        self.training = module.training
        like = next(module.parameters(), torch.empty(0))
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = self.options[name] or (default,) * 3
            buffer = torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
            # Not persistent: the state dict stays the module's.
            self.register_buffer(name, buffer, persistent=False)
        self.register_load_state_dict_pre_hook(_add_module_prefix)

    @property
    def class_names(self) -> list[str]:
        """Name of each class, in the order of the logits."""
        return self.options["class_names"]

    @property
    def input_size(self) -> int:
        """Height and width in pixels of the images that it was trained on."""
        return self.options["input_size"]

    @property
    def resize_size(self) -> int | None:
        """Length in pixels of an image's shorter side before the crop; None = that of the crop."""
        return self.options["resize_size"]

    @property
    def interpolation(self) -> str:
        """How images are resized: bilinear, bicubic, ..."""
        return self.options["interpolation"]

    @property
    def crop(self) -> str:
        """How they are brought to a square: center, squash, ..."""
        return self.options["crop"]

    @property
    def target_layer(self) -> str | None:
        """The layer that class activation maps are made of by default; None = not known."""
        return self.options["target_layer"]

    @property
    def outputs(self) -> OutputKind:
        """What the module gives, see :func:`~lightning_modules.networks.outputs.as_logits`."""
        return self.options["outputs"]

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How its images are prepared: ``datamodules.Preprocess(**network.preprocessing)`` does it."""
        return {name: self.options[name] for name in PREPROCESSING}

    def __call__(self, images: Tensor) -> Tensor:
        """The logits ``(N, n_classes)`` of pixels.

        Raises:
            InputError: If the network is in eval mode and these are no pixels in [0, 1], ``(N, 3, H, W)``.
        """
        if not self.training and not torch.compiler.is_compiling():
            check_images(images, self.mean, self.dtype)
        if not self.is_compiled:
            return super().__call__(images)
        with running_compiled(images, self.name):
            return super().__call__(images)

    def forward(self, images: Tensor) -> Tensor:
        return as_logits(self.module(self.normalized(images)), self.outputs)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Lets :func:`torch.compile`, which takes the arguments, make code of whole passes, when the first one runs.

        Layers keep their names, and facts stay: where layers are looked at, :meth:`uncompiled_logits` are computed.
        """
        keep_graphs()
        super().compile(*args, **kwargs)

    @property
    def is_compiled(self) -> bool:
        """Whether :meth:`compile` was called. A copy of the network is not compiled."""
        return self._compiled_call_impl is not None

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities of logits ``(N, n_classes)``, see :func:`~.networks.outputs.probabilities_of`."""
        return probabilities_of(logits, self.outputs)

    def uncompiled_logits(self, images: Tensor) -> Tensor:
        """The same past the compiled code, if there is any: its layers can then be looked at."""
        return as_logits(self.original(self.normalized(images)), self.outputs)

    def normalized(self, images: Tensor) -> Tensor:
        """What the module gets of pixels: a tensor of its own, which it may write to."""
        return (images - self.mean).div_(self.std)

    @property
    def dtype(self) -> torch.dtype | None:
        """What it computes in; None = in that of the images, as a module without parameters does."""
        has_own = next(self.module.parameters(), None) is not None or bool(self.facts.quantized)
        return self.mean.dtype if has_own else None

    @property
    def original(self) -> nn.Module:
        """The module as it was written, also where ``module`` is a compiled one: its layers can be looked at."""
        return uncompiled(self.module)

    @property
    def layers(self) -> dict[str, nn.Module]:
        """All layers under the module's own names, the outer before the inner ones."""
        return layers_of(self.original)

    @property
    def name(self) -> str:
        """What messages call it: the class of the module."""
        return type(self.original).__name__

    @property
    def mean_pixel(self) -> Tensor:
        """What stands for "no information" in metrics, ``(3, 1, 1)`` in [0, 1]: the mean that normalization subtracts.

        Of a module that takes pixels as they are it is its attribute ``mean``; without one, ImageNet's, with a warning.
        """
        if self._mean is None:
            warnings.warn(
                f"{self.name} has no mean, which stands for no information in scores that take pixels away, so they "
                "put ImageNet's there. Set it by as_network(module, mean=..., std=...).",
                stacklevel=2,
            )
        # Made where it is read: a copy from the host would wait for what a GPU is at.
        return torch.stack([self.mean.new_full((1, 1), value) for value in self._mean or IMAGENET_MEAN])

    @property
    def layers_with_positions(self) -> dict[str, tuple[int, int, int]]:
        """Calls of layers that a class activation map can be made of, by their labels: ``(C, h, w)``."""
        layouts = self.facts.with_positions.items()
        return {label: (layout.channels, layout.height, layout.width) for label, layout in layouts}

    @property
    def layer_channels(self) -> dict[str, int]:
        """How many channels each call of a layer gives, by its label, where it is known which of its axes they are."""
        calls = self.facts.by_label.items()
        return {label: call.layout.channels for label, call in calls if call.layout is not None}

    def label(self, text: str) -> str:
        """The call of a layer that is meant by ``text``, see :func:`.observed.facts.label_of`."""
        return label_of(self.facts, text, self.layers, self.name)

    def call(self, text: str) -> Call:
        """What that call gives."""
        return self.facts.by_label[self.label(text)]

    def layout(self, label: str) -> Layout:
        """How the output of a call of a layer is read.

        Raises:
            InputError: If there is no such call, or it is not known.
        """
        call = self.call(label)
        if call.layout is None:
            given = (
                "no tensor of an entry an image" if call.shape is None else f"(N, {', '.join(map(str, call.shape))})"
            )
            raise InputError(
                f"The layer {label!r} of {self.name} gives {given}: which axis holds channels is not known. Layers "
                f"with channels, the last first: {last_first(self.layer_channels)}."
            )
        return call.layout

    def target_layer_for(self, method: str, layer: str | None = None, option: str = "layer") -> str:
        """The layer that a method looks at: the one that it was given, else the network's own.

        Args:
            method: The method's name, for messages.
            layer: What the method was given, see :meth:`call`; None = nothing.
            option: The method's option that names it, for messages.

        Raises:
            InputError: If there is no such layer, it has no positions, or none is known; lists those that it could be.
        """
        if isinstance(layer, list | tuple):
            raise InputError(f"{method} looks at one layer, and got {list(layer)}: LayerCAM joins the maps of several.")
        layer = self.target_layer if layer is None or layer == "" else layer
        advice = (
            f"Name one by {{class_path: {method}, init_args: {{{option}: ...}}}}; layers with positions, the last "
            f"first: {last_first(self.facts.with_positions)}."
        )
        if layer is None:
            raise InputError(
                f"{method} needs a layer, and {self.name} does not say which layer to look at (target_layer, on the "
                f"command line --model.target_layer). {advice}"
            )
        try:
            layer = self.label(layer)
        except InputError as error:
            raise InputError(f"{method} needs a layer, and {error} {advice}") from error
        call = self.call(layer)
        if call.layout is None or not call.layout.has_positions:
            raise InputError(f"{method} needs a layer with positions, and {layer!r} of {self.name} has none. {advice}")
        if not call.is_read:
            raise InputError(
                f"{method} of {layer!r} would be zero everywhere: the logits of {self.name} do not depend on its "
                f"positions. {advice}"
            )
        return layer

    def description(self) -> dict[str, Any]:
        """What is known of it, as plain values."""
        known = {name: value for name, value in self.options.items() if name != "class_names"}
        known |= {name: list(self.options[name] or (default,) * 3) for name, default in (("mean", 0.0), ("std", 1.0))}
        name = {"name": self.name, "n_classes": len(self.class_names)}
        return {**name, **known, "sources": self.sources, **self.facts.description()}

    def freeze(self) -> Self:
        """Makes the network ready to be explained: eval mode, no parameter gradients, ``channels_last``."""
        return self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own state dict."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the module's own state dict."""
        return self.module.load_state_dict(state_dict, strict, assign)


def check_network(network: Any) -> None:
    """Refuses what is no network.

    Raises:
        InputError: If it is something else; says how to make one of it.
    """
    if isinstance(network, Network):
        return
    if isinstance(network, nn.Module):
        raise InputError(
            f"A {type(network).__name__} does not say how its images are normalized: make it a network by "
            "as_network(module, mean=..., std=...), or as_network(module) if it takes pixels in [0, 1]."
        )
    what = f"{network.__name__} is a class" if isinstance(network, type) else f"got a {type(network).__name__}"
    raise InputError(f"network should be what load_network(name) or as_network(module) gives; {what}.")


def uncompiled(module: nn.Module) -> nn.Module:
    """The module as it was written, of one that ``torch.compile`` made too."""
    inside: Any = getattr(module, "_orig_mod", module)
    return inside


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in module.named_modules() if name}


def _add_module_prefix(network: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Renames what :meth:`Network.state_dict` gave, as a part of a larger module's, to where it belongs."""
    for name in [name for name in state_dict if name.startswith(prefix)]:
        state_dict[f"{prefix}module.{name.removeprefix(prefix)}"] = state_dict.pop(name)
