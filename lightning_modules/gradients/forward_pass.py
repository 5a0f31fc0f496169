"""One forward pass over a batch, and its gradients on demand, each computed at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.gradients.rectifiers import ReLURule, RuleOnReLU


class ForwardPass:
    """Holds a batch's images, targets, logits and the activations asked for, and computes gradients of the targets'
    logits when they are first needed.

    The model is neither changed nor hooked beyond the one forward, and no parameter gets a gradient: gradients come
    from ``torch.autograd.grad`` of the graph that the forward left. It works under ``torch.no_grad`` and
    ``torch.inference_mode`` too, so also in Lightning's test and predict loops. The logit of an image depends on that
    image alone, so one backward pass of the sum over the batch gives every image's own gradient.

    Args:
        model: Maps images to logits ``(N, n_classes)``; in eval mode.
        images: Pixels in [0, 1], ``(N, 3, H, W)``, floating point.
        target: The class to explain, for each image: long ``(N,)``, one int for all, or None for the predicted class.
        layers: Names of the layers whose activations are kept. None keeps that of the model's ``target_layer``, if it
            has such an attribute.
        keys: A string for each image, such as its path, from which methods seed their noise. None takes a hash of the
            pixels.
        input_gradients: Whether gradients with respect to the pixels may be asked for. Otherwise nothing is kept of
            what runs before the first of ``layers``, so that the pass costs little more than a bare forward: enough
            for Grad-CAM.
        guided: Whether the guided gradient may be asked for. Otherwise the network runs as it is, so that of one made
            by ``torch.compile`` nothing has to run uncompiled.
        once: Whether a single gradient is going to be asked for: what it needs is then freed on the way, so that less
            memory is held.
        together: Whether the layer's gradient and the guided one are both going to be asked for. They then share a
            backward pass, if the layer is that which the model names by its attribute ``pairs_after``: nothing goes by
            it, so that what follows may run on a batch of twice the size.

    Attributes:
        logits: ``(N, n_classes)``, detached, at least float32.
        target: long ``(N,)``.

    Raises:
        InputError: If a shape, dtype, target, layer or number of keys is wrong, or the model is in training mode.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112), target=3)
        >>> forward_pass.input_gradient().shape, forward_pass.layer_gradient("features.29").shape
        (torch.Size([2, 3, 112, 112]), torch.Size([2, 128, 7, 7]))
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Tensor | int | None = None,
        *,
        layers: Sequence[str] | None = None,
        keys: Sequence[str] | None = None,
        input_gradients: bool = True,
        guided: bool = True,
        once: bool = False,
        together: bool = False,
    ) -> None:
        if images.ndim != 4 or not images.is_floating_point():
            raise InputError(f"images must be floating point (N, C, H, W), got {images.dtype} {tuple(images.shape)}.")
        if model.training:
            raise InputError("The model is in training mode, so its output is random; call model.eval() first.")
        if keys is not None and len(keys) != len(images):
            raise InputError(f"There are {len(keys)} keys for {len(images)} images.")
        default = getattr(model, "target_layer", None)
        self.model = model
        self.target_layer: str | None = default
        self._keys = None if keys is None else list(keys)
        self._relu_rule = ReLURule() if guided else None
        self._gradients: dict[str, Tensor] = {}
        self._once = once
        with _gradients_enabled():
            self.images = images.detach().clone(memory_format=torch.channels_last).requires_grad_(input_gradients)
            if layers is None:
                layers = [default] if default else []
            rule = RuleOnReLU(self._relu_rule) if self._relu_rule else nullcontext()
            pairs = together and input_gradients and list(layers) == [getattr(model, "pairs_after", None)]
            pair = _Pair(self._relu_rule) if pairs and self._relu_rule else None
            with _record(model, layers, pair) as activations, rule:
                logits = model(self.images)
            self._both = pair.both if pair else None
            if logits.ndim != 2:
                raise InputError(f"The model should give logits (N, n_classes), got {tuple(logits.shape)}.")
            n = len(images)
            self.logits = _full_precision(logits[:n].detach())
            self.target = self._check_target(target)
            self._activations = activations
            # Of a pair, the images' gradients come by way of the second ones.
            self._attached_logits = logits[-n:] if n else logits
            targets = self.target if self._both is None else self.target.repeat(2)
            self._score = _full_precision(logits.gather(1, targets[:, None])).sum()

    def _check_target(self, target: Tensor | int | None) -> Tensor:
        n, n_classes = self.logits.shape
        if target is None:
            return self.logits.argmax(1)
        target = torch.as_tensor(target, device=self.logits.device).expand(n) if isinstance(target, int) else target
        if target.shape != (n,) or target.is_floating_point() or target.dtype == torch.bool:
            raise InputError(f"target must be integer ({n},), got {target.dtype} {tuple(target.shape)}.")
        if n and (int(target.min()) < 0 or int(target.max()) >= n_classes):
            raise InputError(f"target must lie in [0, {n_classes}), got {target.tolist()}.")
        # A clone, since autograd cannot keep a tensor that was made under inference mode.
        return target.to(self.logits.device, torch.long).clone()

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, ``(N, n_classes)``."""
        return self.logits.softmax(1)

    @cached_property
    def prediction(self) -> Tensor:
        """The most probable class, long ``(N,)``."""
        return self.logits.argmax(1)

    @cached_property
    def keys(self) -> list[str]:
        """What noise is seeded from: an image's key as given, or the SHA-256 of its pixels."""
        if self._keys is not None:
            return self._keys
        pixels = self.images.detach().cpu().contiguous()
        return [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in pixels]

    def activation(self, layer: str | None = None) -> Tensor:
        """Output of ``layer`` (None = the model's target layer), detached, at least float32.

        Raises:
            InputError: If the layer was not asked for when the pass was made.
        """
        return _full_precision(self._activation(layer).detach())

    def layer_gradient(self, layer: str | None = None) -> Tensor:
        """Gradient of the target logit with respect to the output of ``layer``; computed no deeper than the layer.

        Raises:
            InputError: If the layer was not asked for when the pass was made.
        """
        activation = self._activation(layer)
        self._compute_together()
        return self._gradient(f"layer {layer or self.target_layer}", activation)

    def input_gradient(self) -> Tensor:
        """Gradient of the target logit with respect to the pixels, ``(N, 3, H, W)``, signed."""
        return self._gradient("input", self._differentiable_images())

    def pull_back(self, cotangent: Tensor) -> Tensor:
        """Gradient of ``(cotangent * logits).sum()`` with respect to the pixels, ``(N, 3, H, W)``; not kept.

        Args:
            cotangent: Gradient of some loss with respect to the logits, ``(N, n_classes)``.
        """
        with _gradients_enabled():
            cotangent = cotangent.to(self._attached_logits.dtype)
            images = self._differentiable_images()
            return torch.autograd.grad(self._attached_logits, images, cotangent, retain_graph=True)[0]

    def guided_gradient(self) -> Tensor:
        """The same under the rule of Guided Backpropagation, ``(N, 3, H, W)``, signed.

        At each ReLU, ``R_in = (x > 0) · (R_out > 0) · R_out``.

        Reference: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop.
        """
        if self._relu_rule is None:
            raise InputError("This pass was made without the guided gradient: ForwardPass(..., guided=True).")
        self._compute_together()
        with self._relu_rule.guided():
            return self._gradient("guided input", self._differentiable_images())

    def at(self, images: Tensor, target: Tensor, *, guided: bool = True, once: bool = False) -> ForwardPass:
        """A forward pass of the same model at other images ``(M, 3, H, W)``, targets ``(M,)``; keeps no activations."""
        return ForwardPass(self.model, images, target, layers=(), guided=guided, once=once)

    def _activation(self, layer: str | None) -> Tensor:
        name = layer or self.target_layer
        if name is None:
            raise InputError(
                f"{type(self.model).__name__} does not say which layer to look at (it has no attribute target_layer). "
                f"Name one, as in GradCAM(layer=...): {_layer_names(self.model)}."
            )
        if name not in self._activations:
            raise InputError(
                f"The activations of layer {name!r} were not kept, only those of {sorted(self._activations)}. Ask for "
                f"them: ForwardPass(..., layers=[{name!r}])."
            )
        return self._activations[name]

    def _differentiable_images(self) -> Tensor:
        if not self.images.requires_grad:
            raise InputError(
                "This pass was made without gradients of its input: ForwardPass(..., input_gradients=True). A method "
                "that needs them says so by its attribute needs_input_gradient."
            )
        return self.images

    def _compute_together(self) -> None:
        """The true gradient of the layer and the guided one of the input, of a pass that goes in pairs."""
        if self._both is None or "guided input" in self._gradients:
            return
        (layer,) = self._activations
        assert self._relu_rule is not None
        inputs = self._both, self.images
        with _gradients_enabled(), self._relu_rule.guided():
            found = torch.autograd.grad(
                self._score, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        self._gradients[f"layer {layer}"] = _full_precision(found[0][: len(self.images)])
        self._gradients["guided input"] = _full_precision(found[1])

    def _gradient(self, name: str, inputs: Tensor) -> Tensor:
        if name not in self._gradients:
            if self._once and self._gradients:
                raise InputError("This pass was made for a single gradient: ForwardPass(..., once=True).")
            gradient = None
            if self._score.requires_grad:
                with _gradients_enabled():
                    (gradient,) = torch.autograd.grad(
                        self._score, inputs, retain_graph=not self._once, allow_unused=True
                    )
            # A layer that the logits do not depend on has gradient zero.
            self._gradients[name] = torch.zeros_like(inputs) if gradient is None else _full_precision(gradient)
        return self._gradients[name]


@contextmanager
def _gradients_enabled() -> Iterator[None]:
    # Lightning tests and predicts under inference mode, or under no_grad with some backends.
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _full_precision(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _layer_names(model: nn.Module) -> str:
    names = [name for name, _ in model.named_modules() if name]
    return ", ".join(names[-40:]) if len(names) <= 40 else "..., " + ", ".join(names[-40:])


class _Pair:
    """Sends each image twice through what comes after a layer, from where on one backward pass serves two gradients.

    The first ones, cut off from the images, keep the true gradient; the second ones have the guided one, if it is asked
    for. It pays where what follows is bound by its weights, as VGG16's classifier is: they are read once.

    Attributes:
        both: The layer's output for the first ones, then for the second ones; None if it has not run.
    """

    def __init__(self, rule: ReLURule) -> None:
        self.rule = rule
        self.both: Tensor | None = None

    def __call__(self, output: Tensor) -> Tensor:
        """The pairs of a layer's output ``(N, ...)``; kept."""
        self.rule.n_true = len(output)
        self.both = torch.cat([output.detach(), output])
        return self.both


@contextmanager
def _record(model: nn.Module, layers: Sequence[str], pair: _Pair | None = None) -> Iterator[dict[str, Tensor]]:
    """Keeps the outputs of ``layers`` while the model runs, in the dict that it yields; pairs them, if asked to.

    Where the graph has not begun, as nothing before needs a gradient, it begins at the output.
    """
    modules = dict(model.named_modules())
    if unknown := [layer for layer in layers if layer not in modules]:
        raise InputError(f"{type(model).__name__} has no layer {unknown[0]!r}; it has {_layer_names(model)}.")
    activations: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], Tensor]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise InputError(f"Layer {name!r} gives a {type(output).__name__}, not a tensor; name another layer.")
            # Where the images have no gradients, the graph begins here.
            begins = output.is_floating_point() and not output.requires_grad
            activations[name] = output.detach().requires_grad_() if begins else output
            # The layers after it get a copy: one that works in place would overwrite what is kept.
            return (pair(output) if pair else activations[name]).clone()

        return hook

    handles = [modules[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()
