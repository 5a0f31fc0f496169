"""Attribution methods: small callable objects from a forward pass to one map for each image.

Maps are raw: at the size of the input, one channel for a class activation map and three for gradients, not rescaled.
"""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.networks.loading import candidate_layers
from lightning_modules.options import NamedByOptions, seed_from


class AttributionMethod(NamedByOptions, ABC):
    """What an attribution method is: a call from a :class:`ForwardPass` to maps ``(N, 1 or 3, H, W)``.

    To add one, derive a class in a file of your own, keep each option of ``__init__`` as the attribute of its name, and
    name the class on the command line by its import path.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> class InputTimesGradient(AttributionMethod):
        ...     def __call__(self, forward_pass):
        ...         return forward_pass.images.detach() * forward_pass.input_gradient()
        >>> InputTimesGradient()(forward_pass).shape
        torch.Size([2, 3, 112, 112])
    """

    layer: str | None = None
    """The layer whose activations the method reads; None is the network's ``target_layer``."""

    needs_input_gradient: bool = True
    """Whether the method asks the pass for a gradient with respect to the pixels. If none does, nothing is kept for it,
    which saves most of the memory."""

    reads_layer_gradient: bool = False
    reads_guided_gradient: bool = False
    """Whether the method asks for these two; of methods that ask for both, they come from one backward pass."""

    @abstractmethod
    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        """The maps of all images of the pass."""


def layers_of_methods(network: Any, methods: Sequence[AttributionMethod]) -> list[str]:
    """Names of the layers of which the methods need the activations.

    Args:
        network: Has a ``target_layer`` (or None) and an ``input_size`` in pixels.
        methods: Of which those with an option ``layer`` read a layer.

    Raises:
        InputError: If the network has no such layer, or a method leaves it to a network that names none; lists those
            that it could be.
    """
    needed = []
    for method in methods:
        layer = method.layer or network.target_layer
        if layer is None and "layer" not in inspect.signature(type(method)).parameters:
            continue  # it reads no layer
        if layer not in dict(network.named_modules()):
            name = type(method).__name__
            why = f"has no layer {layer!r}" if layer else "does not say which layer to look at (target_layer)"
            near = difflib.get_close_matches(layer or "", dict(network.named_modules()), n=1)
            why += f". Did you mean {near[0]}?" if near else "."
            layers = [f"{at} {c}×{h}×{w}" for at, (c, h, w) in candidate_layers(network, network.input_size).items()]
            raise InputError(
                f"{name} needs a layer, and {type(network).__name__} {why} Name one by "
                f"{{class_path: {name}, init_args: {{layer: ...}}}}; layers with positions, the last first: "
                f"{', '.join(layers[:-13:-1])}{', ...' if len(layers) > 12 else ''}."
            )
        needed.append(layer)
    return sorted(set(needed))


class Saliency(AttributionMethod):
    """The gradient of the target logit with respect to the pixels, ``(N, 3, H, W)``, signed.

    The paper takes its magnitude and the maximum over the channels; here, as for all methods, the map is left signed.

    Reference: Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR 2014 workshop.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> Saliency()(forward_pass).shape
        torch.Size([2, 3, 112, 112])
    """

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.input_gradient()


class GradCAM(AttributionMethod):
    r"""Grad-CAM, ``(N, 1, H, W)``, at least 0, bilinear from the layer's grid to the input's size.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
        \alpha_k = \frac{1}{Z} \sum_{ij} \frac{\partial y}{\partial A^k_{ij}}

    where ``A`` are the activations of the layer and ``y`` is the target logit.

    Args:
        layer: Name of the layer to look at. null = the network's own target layer, features.29 in VGG16.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> cam = GradCAM()(forward_pass)
        >>> cam.shape, bool((cam >= 0).all())
        (torch.Size([2, 1, 112, 112]), True)
    """

    needs_input_gradient = False
    reads_layer_gradient = True

    def __init__(self, layer: str | None = None) -> None:
        self.layer = layer

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        activation = forward_pass.activation(self.layer)
        if activation.ndim != 4:
            raise InputError(
                f"Grad-CAM needs a layer that gives (N, C, h, w); {self.layer!r} gives {tuple(activation.shape)}."
            )
        weights = forward_pass.layer_gradient(self.layer).mean((2, 3), keepdim=True)
        cam = (weights * activation).sum(1, keepdim=True).relu()
        return F.interpolate(cam, forward_pass.images.shape[2:], mode="bilinear", align_corners=False)


class GuidedBackprop(AttributionMethod):
    """Guided Backpropagation, ``(N, 3, H, W)``, signed: see :meth:`ForwardPass.guided_gradient`.

    Reference: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> GuidedBackprop()(forward_pass).shape
        torch.Size([2, 3, 112, 112])
    """

    reads_guided_gradient = True

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.guided_gradient()


class GuidedGradCAM(AttributionMethod):
    """Guided Grad-CAM, ``(N, 3, H, W)``, signed: Grad-CAM times Guided Backpropagation, pixel by pixel.

    Args:
        layer: Name of the layer Grad-CAM looks at. null = the network's own target layer, features.29 in VGG16.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> product = GradCAM()(forward_pass) * GuidedBackprop()(forward_pass)
        >>> torch.equal(GuidedGradCAM()(forward_pass), product)
        True
    """

    reads_layer_gradient = reads_guided_gradient = True

    def __init__(self, layer: str | None = None) -> None:
        self.layer = layer

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return GradCAM(self.layer)(forward_pass) * forward_pass.guided_gradient()


class SmoothGrad(AttributionMethod):
    r"""SmoothGrad, ``(N, 3, H, W)``: the mean gradient over noisy copies of the image.

    .. math:: M(x) = \frac{1}{n} \sum_{i=1}^{n} \nabla y(x + \mathcal{N}(0, \sigma^2)), \quad
        \sigma = \text{noise_level} \cdot (\max x - \min x)

    The noise of an image follows from the seed and the image's key alone, so its map is the same in any batch. The
    target is that of the clean image.

    Args:
        n_samples: Noisy copies of each image, at least 1.
        noise_level: Standard deviation of the noise as a fraction of the image's own range, at least 0.
        clip: Whether the noisy pixels are clipped to [0, 1]. The paper does not clip.
        statistic: What is averaged over the copies: the signed gradients (the paper), their magnitudes, or their
            squares (as in Hooker et al., "A Benchmark for Interpretability Methods", NeurIPS 2019).
        max_batch: Most noisy images in one pass, which bounds the memory. null = as many as the batch has, at least 32.
        seed: Seed of the noise.

    Raises:
        InputError: If ``n_samples``, ``noise_level`` or ``max_batch`` is out of its range.

    Reference: Smilkov et al., "SmoothGrad: removing noise by adding noise", 2017.

    Example:
        >>> from lightning_modules import ForwardPass, load_vgg16
        >>> forward_pass = ForwardPass(load_vgg16("shapes"), torch.rand(2, 3, 112, 112))
        >>> without_noise = SmoothGrad(n_samples=1, noise_level=0)(forward_pass)
        >>> torch.allclose(without_noise, forward_pass.input_gradient(), atol=1e-5)
        True
    """

    needs_input_gradient = False  # it makes passes of its own at the noisy images

    def __init__(
        self,
        n_samples: int = 25,
        noise_level: float = 0.15,
        clip: bool = False,
        statistic: Literal["signed", "magnitude", "squared"] = "signed",
        max_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        if n_samples < 1:
            raise InputError(f"n_samples must be at least 1, got {n_samples}.")
        if max_batch is not None and max_batch < 1:
            raise InputError(f"max_batch must be at least 1, got {max_batch}.")
        if not noise_level >= 0:
            raise InputError(f"noise_level must be at least 0, got {noise_level}.")
        self.n_samples = n_samples
        self.noise_level = noise_level
        self.clip = clip
        self.statistic = statistic
        self.max_batch = max_batch
        self.seed = seed

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        generators = [
            torch.Generator(images.device).manual_seed(seed_from(self.seed, key)) for key in forward_pass.keys
        ]
        most = self.max_batch or max(32, len(images))
        total = torch.zeros_like(images)
        for first in range(0, len(images), most):
            part = slice(first, first + most)
            total[part] = self._sum(forward_pass, images[part], forward_pass.target[part], generators[part], most)
        return total / self.n_samples

    def _sum(
        self,
        forward_pass: ForwardPass,
        images: Tensor,
        target: Tensor,
        generators: list[torch.Generator],
        most: int,
    ) -> Tensor:
        """The sum over the copies, for so few images that at least one copy of all fits in a pass of ``most``."""
        sigma = self.noise_level * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        total = torch.zeros_like(images)
        copies = most // len(images)
        for start in range(0, self.n_samples, copies):
            k = min(copies, self.n_samples - start)
            # Drawn copy by copy, so that the noise does not depend on how many share a pass.
            noisy = torch.cat([images + sigma * self._noise(images, generators) for _ in range(k)])
            noisy = noisy.clamp(0, 1) if self.clip else noisy
            gradient = forward_pass.at(noisy, target.repeat(k), guided=False, once=True).input_gradient()
            if self.statistic == "magnitude":
                gradient = gradient.abs()
            elif self.statistic == "squared":
                gradient = gradient.square()
            total += gradient.unflatten(0, (k, len(images))).sum(0)
        return total

    @staticmethod
    def _noise(images: Tensor, generators: list[torch.Generator]) -> Tensor:
        options: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
        noise = [torch.randn(images.shape[1:], generator=generator, **options) for generator in generators]
        return torch.stack(noise)
