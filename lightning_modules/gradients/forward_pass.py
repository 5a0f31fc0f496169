"""One forward pass over a batch, and its gradients on demand, each computed at most once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from threading import RLock

import torch
from torch import Tensor

from lightning_modules.errors import InputError, described
from lightning_modules.gradients.fitting import is_out_of_memory
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.gradients.recording import recorded, with_labels
from lightning_modules.gradients.rectifiers import RectifierRule, check_guided_rule, warn_without_rule
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.inputs import Target, check_images, target_classes, trusted
from lightning_modules.networks.network import Network, check_network
from lightning_modules.networks.observed.nonlinearities import REENTRANT
from lightning_modules.networks.observed.observation import visible_torchscript


def keys_of(images: Tensor) -> list[str]:
    """The SHA-256 of the pixels of each image: what its noise is seeded from where it has no name."""
    pixels = images.detach().cpu().contiguous()
    return [hashlib.sha256(image.view(torch.uint8).numpy().tobytes()).hexdigest() for image in pixels]


class ForwardPass:
    """Holds a batch's images, targets, logits and the activations asked for, and computes gradients of the targets'
    logits when they are first needed.

    The network is neither changed nor hooked beyond the one forward, and no parameter gets a gradient: gradients come
    from ``torch.autograd.grad`` of the graph that the forward left. It works under ``torch.no_grad`` and
    ``torch.inference_mode`` too, so also in Lightning's test and predict loops. The logit of an image depends on that
    image alone, so one backward pass of the sum over the batch gives every image's own gradient.

    Args:
        network: From pixels in [0, 1] to logits ``(N, n_classes)``; in eval mode.
        images: Pixels in [0, 1], ``(N, 3, H, W)``, floating point.
        target: The class to explain, by its index, name or WordNet id: one for all images, or N of them, as a tensor
            ``(N,)`` of indices. None = the predicted class of each.
        needs: What is going to be read of the pass. Nothing else is kept: without gradients it costs a bare forward;
            with those of layers alone, little more; and what a single gradient needs is freed on the way. Only where
            layers or the guided gradient are read, a compiled network runs uncompiled.
        keys: A string for each image, such as its path, from which methods seed their noise. None takes a hash of the
            pixels.

    Attributes:
        logits: ``(N, n_classes)``, detached, at least float32.
        target: long ``(N,)``.

    Raises:
        InputError: If images are no pixels in [0, 1], a target, layer or number of keys is wrong, or the network is in
            training mode.

    Example:
        >>> from lightning_modules import load_vgg16
        >>> needs = Needs(layer_gradients={"features.29"}, input_gradient=True)
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112), target=3, needs=needs)
        >>> forward_pass.input_gradient().shape, forward_pass.layer_gradient("features.29").shape
        (torch.Size([2, 3, 112, 112]), torch.Size([2, 128, 7, 7]))
    """

    def __init__(
        self,
        network: Network,
        images: Tensor,
        target: Target = None,
        *,
        needs: Needs | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        check_network(network)
        check_images(images, network.mean, network.dtype)
        classes = target_classes(target, network.class_names, len(images))
        if training := [name or "the model" for name, part in network.module.named_modules() if part.training]:
            raise InputError(f"{training[0]} is in training mode, so the output is random; call model.eval() first.")
        if keys is not None and len(keys) != len(images):
            raise InputError(f"There are {len(keys)} keys for {len(images)} images.")
        if needs is not None and needs.n_gradients:
            check_gradient(network)
        if needs is not None and needs.n_gradients and REENTRANT in network.facts.nonlinearities.unknown:
            raise InputError(
                f"{network.name} runs {REENTRANT}, of which PyTorch gives no gradient of the pixels: say "
                "use_reentrant=False to torch.utils.checkpoint, or switch checkpoints off."
            )
        if needs is not None and needs.guided_gradient:
            check_guided_rule(network)
        self.network = network
        self.needs = needs = with_labels(Needs() if needs is None else needs, network)
        self._keys = None if keys is None else list(keys)
        self._rule = RectifierRule()
        self._gradients: dict[str, Tensor] = {}
        self._computing = RLock()
        with gradients_enabled(), torch.set_grad_enabled(needs.n_gradients > 0):
            self.images = images.detach().clone(memory_format=torch.channels_last).requires_grad_(needs.reaches_input)
            logits, self._activations = self._run()
            if logits.ndim != 2:
                raise InputError(f"The model should give logits (N, n_classes), got {tuple(logits.shape)}.")
            if needs.reaches_input and not logits.requires_grad:
                raise self._without_gradient()
            if needs.guided_gradient:
                warn_without_rule(network, self._rule.put_on(logits, self.images))
            self.logits = _full_precision(logits.detach())
            self.target = self._target_of(classes)
            self._attached_logits = logits
            self._score = _full_precision(logits.gather(1, self.target[:, None])).sum()

    def _run(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The logits, and the activations of the layers needed.

        Raises:
            InputError: If the network takes no images of this size.
        """
        sides, size = tuple(self.images.shape[2:]), self.network.input_size
        try:
            return self._outputs()
        except (AssertionError, RuntimeError, ValueError) as error:  # of a stranger's code
            if sides == (size, size) or isinstance(error, InputError) or is_out_of_memory(error):
                raise
            shown = " × ".join(map(str, sides))
            raise InputError(
                f"{self.network.name} fails on images of {shown} pixels: {described(error)} It was trained on {size} × "
                f"{size}."
            ) from error

    def _outputs(self) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.needs.layers and not self.needs.guided_gradient:
            with trusted(), visible_torchscript():
                return self.network(self.images), {}
        with recorded(self.network, self.needs) as activations, visible_torchscript():
            # Past the compiled code, if there is any, which hooks do not reach.
            logits = self.network.uncompiled_logits(self.images)
        return logits, activations

    def _target_of(self, classes: Tensor | int | None) -> Tensor:
        if classes is None:
            return self.logits.argmax(1)
        if isinstance(classes, int):
            return torch.full((len(self.logits),), classes, device=self.logits.device)
        # A clone, since autograd cannot keep a tensor that was made under inference mode.
        return classes.to(self.logits.device).clone()

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, ``(N, n_classes)``; of independent labels the sigmoids."""
        return self.network.probabilities(self.logits)

    @cached_property
    def prediction(self) -> Tensor:
        """The most probable class, long ``(N,)``."""
        return self.logits.argmax(1)

    @property
    def target_logit(self) -> Tensor:
        """The logit of the target, ``(N,)``."""
        return self.logits.gather(1, self.target[:, None])[:, 0]

    @property
    def target_probability(self) -> Tensor:
        """The probability of the target, ``(N,)``."""
        return self.probabilities.gather(1, self.target[:, None])[:, 0]

    @cached_property
    def keys(self) -> list[str]:
        """What noise is seeded from: an image's key as given, or the SHA-256 of its pixels."""
        if self._keys is not None:
            return self._keys
        return keys_of(self.images)

    def activation(self, layer: str | None = None) -> Tensor:
        """Output of ``layer`` (None = the network's target layer), detached, at least float32.

        Raises:
            InputError: If the pass's needs do not name the layer.
        """
        return _full_precision(self._activation(layer)[1].detach())

    def layer_gradient(self, layer: str | None = None) -> Tensor:
        """Gradient of the target logit with respect to the output of ``layer``.

        One backward pass serves all layers that the pass's needs name, and ends at the first of them.

        Raises:
            InputError: If the pass's needs do not name the layer.
        """
        name, _ = self._activation(layer)
        self._require(name in self.needs.layer_gradients, f"layer_gradients={{{name!r}}}")
        with self._computing:
            if f"layer {name}" not in self._gradients:
                layers = sorted(self.needs.layer_gradients)
                found = self._gradients_of([self._activations[layer] for layer in layers])
                # A layer that the logits do not depend on has gradient zero.
                self._gradients |= {
                    f"layer {layer}": torch.zeros_like(self._activations[layer]) if gradient is None else gradient
                    for layer, gradient in zip(layers, found, strict=True)
                }
            return self._gradients[f"layer {name}"]

    def input_gradient(self) -> Tensor:
        """Gradient of the target logit with respect to the pixels, ``(N, 3, H, W)``, signed."""
        self._require(self.needs.input_gradient, "input_gradient=True")
        return self._gradient("input")

    def guided_gradient(self) -> Tensor:
        """The same under the rule of Guided Backpropagation, ``(N, 3, H, W)``, signed.

        At each rectifier, ``R_in = (x > 0) · (R_out > 0) · R_out``. Where it has a maximum, as ReLU6 has, ``R_in`` is 0
        from there on too.

        Reference: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop.
        """
        self._require(self.needs.guided_gradient, "guided_gradient=True")
        with self._computing, self._rule.guided():
            return self._gradient("guided input")

    def loss_gradient(self, loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Gradient of a loss with respect to the pixels, ``(N, 3, H, W)``; not kept.

        Args:
            loss: The logits ``(N, n_classes)`` -> one number.
        """
        self._require(self.needs.loss_gradient, "loss_gradient=True")
        with self._computing, gradients_enabled():
            logits = self.logits.clone().requires_grad_()
            (cotangent,) = torch.autograd.grad(loss(logits), logits)
            cotangent = cotangent.to(self._attached_logits.dtype)
            return torch.autograd.grad(self._attached_logits, self.images, cotangent, retain_graph=True)[0]

    def at(self, images: Tensor, target: Tensor, needs: Needs, keys: Sequence[str] | None = None) -> ForwardPass:
        """A pass of the same network at other images ``(M, 3, H, W)``; they and ``(M,)`` targets are trusted."""
        with trusted():
            return ForwardPass(self.network, images, target, needs=needs, keys=keys)

    def label(self, layer: str | None = None) -> str:
        """The call of a layer that is meant; None = the network's target layer.

        Raises:
            InputError: If the network has none.
        """
        label = layer or self.network.target_layer
        if label is None:
            raise InputError(f"{self.network.name} does not say which layer to look at (target_layer). Name one.")
        return self.network.label(label)

    def _activation(self, layer: str | None) -> tuple[str, Tensor]:
        name = self.label(layer)
        self._require(name in self._activations, f"activations={{{name!r}}}")
        return name, self._activations[name]

    def _require(self, is_kept: bool, wish: str) -> None:
        if not is_kept:
            raise InputError(
                f"This pass was made without what is read of it. Ask for it: ForwardPass(..., needs=Needs({wish})). A "
                "method of your own says so by its needs(network)."
            )

    def _gradient(self, name: str) -> Tensor:
        """The gradient of the pixels under the rule that holds, kept as ``name``."""
        with self._computing:
            if name not in self._gradients:
                (gradient,) = self._gradients_of([self.images])
                if gradient is None:
                    raise self._without_gradient()
                self._gradients[name] = gradient
            return self._gradients[name]

    def _gradients_of(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        """Gradients of the target logits by one backward pass; None = they do not depend on it."""
        if not self._score.requires_grad:
            return [None] * len(inputs)
        with gradients_enabled():
            gradients = torch.autograd.grad(
                self._score, inputs, retain_graph=self.needs.n_gradients > 1, allow_unused=True
            )
        return [None if gradient is None else _full_precision(gradient) for gradient in gradients]

    def _without_gradient(self) -> InputError:
        return InputError(
            f"The logits of {self.network.name} have no gradient with respect to the pixels: somewhere its forward "
            "leaves PyTorch's autograd (torch.no_grad, detach, NumPy, a network frozen for inference)."
        )


def _full_precision(tensor: Tensor) -> Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
