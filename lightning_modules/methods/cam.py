"""Class activation maps: a layer's activations, weighted and added up. Here is what they share, and Grad-CAM."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor
from torch.nn import functional as F

from datamodules.text import Text
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.gradients.rectifiers import check_guided_rule
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import Sign
from lightning_modules.networks.network import Network


class ClassActivationMap(AttributionMethod):
    """A class activation map from one layer's activations and gradients. A subclass says how they are weighted.

    Args:
        layer: Name of the layer to look at, of any layout of channels and positions, Swin's and ViT's tokens too;
            ``layer@2`` names one of several calls, counted from 0. null = the network's own target layer, features.29
            in VGG16.
        rectify: Whether what is negative is cut off, as in the papers. Where all of it is, the map is then black.
    """

    sign: Sign = "positive"
    rectify = True

    def __init__(self, layer: Text | None = None, rectify: bool = True) -> None:
        self.layer = layer
        self.rectify = rectify
        self.sign = sign_of(rectify)

    def needs(self, network: Network) -> Needs:
        check_gradient(network)
        return Needs(layer_gradients={network.target_layer_for(type(self).__name__, self.layer)})

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return on_pixels(self.grid(forward_pass, self.layer), forward_pass)

    def grid(self, forward_pass: ForwardPass, layer: str | None) -> Tensor:
        """The map on the positions of a layer, ``(N, 1, h, w)``; rectified, it is at least 0."""
        layout = forward_pass.network.layout(forward_pass.label(layer))
        gradient = layout.maps(forward_pass.layer_gradient(layer))
        total = self.weighted(channel_maps(forward_pass, layer), gradient).sum(1, keepdim=True)
        return total.relu() if self.rectify else total

    @staticmethod
    @abstractmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        """The activations as they are added up, ``(N, C, h, w)``, as both arguments."""


def sign_of(rectify: bool) -> Sign:
    """What a pixel of a class activation map is worth."""
    return "positive" if rectify else "signed"


def warn_of_black(methods: Sequence[AttributionMethod], maps: Sequence[Tensor], forward_pass: ForwardPass) -> None:
    """Warns of class activation maps that are black since all that is added up is negative; reads once whether any is.

    Args:
        methods: The methods.
        maps: The maps of each, ``(N, C, H, W)``.
        forward_pass: What they explain.
    """
    cams = [
        (of, map_) for of, map_ in zip(methods, maps, strict=True) if isinstance(of, ClassActivationMap) and of.rectify
    ]
    if not cams or not len(forward_pass.images):
        return
    is_black = torch.stack([(map_ == 0).flatten(1).all(1) for _, map_ in cams]).tolist()
    for (method, _), black in zip(cams, is_black, strict=True):
        if not any(black):
            continue
        signed = copy(method)
        signed.rectify = False
        negative = (signed(forward_pass) < 0).flatten(1).any(1).tolist()
        if n := sum(map(all, zip(black, negative, strict=True))):
            warnings.warn(
                f"{n} of {len(black)} maps of {method!r} are black: what it adds up is nowhere above 0. "
                f"{type(method).__name__}(rectify=False) keeps the sign.",
                stacklevel=3,
            )


def channel_maps(forward_pass: ForwardPass, layer: str | None) -> Tensor:
    """The activations of a layer as ``(N, C, h, w)``, whatever its layout.

    Raises:
        InputError: If it has no positions.
    """
    layout = forward_pass.network.layout(forward_pass.label(layer))
    activation = layout.maps(forward_pass.activation(layer))
    if activation.ndim != 4:
        raise InputError(
            f"A class activation map needs a layer with positions; {layer!r} gives {tuple(activation.shape)}."
        )
    return activation


def on_pixels(grid: Tensor, forward_pass: ForwardPass) -> Tensor:
    """A map on a layer's positions, ``(N, 1, h, w)``, at the size of the images; bilinear."""
    return F.interpolate(grid, forward_pass.images.shape[2:], mode="bilinear", align_corners=False)


def map_and_grid(method: AttributionMethod, forward_pass: ForwardPass) -> tuple[Tensor, Tensor]:
    """The maps of a method, and on its layer's positions what they were enlarged from; or, where there is more to them
    than that, themselves. Both detached.
    """
    # A call of its own may do more than enlarge.
    if isinstance(method, ClassActivationMap) and type(method).__call__ is ClassActivationMap.__call__:
        grid = method.grid(forward_pass, method.layer).detach()
        return on_pixels(grid, forward_pass), grid
    maps = method(forward_pass).detach()
    return maps, maps


class GradCAM(ClassActivationMap):
    r"""Grad-CAM, ``(N, 1, H, W)``, at least 0, bilinear from the layer's grid to the input's size.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \alpha_k A^k\Big), \quad
        \alpha_k = \frac{1}{Z} \sum_{ij} \frac{\partial y}{\partial A^k_{ij}}

    where ``A`` are the activations of the layer and ``y`` is the target logit. It costs a backward pass that ends at
    the layer.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017.
    """

    meaning = "Grad-CAM. Marks the regions that raise the score of the class. It is coarse, but knows classes apart."

    @staticmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean((2, 3), keepdim=True) * activation


class GuidedGradCAM(AttributionMethod):
    """Guided Grad-CAM, ``(N, 3, H, W)``, signed: Grad-CAM times Guided Backpropagation, pixel by pixel.

    Args:
        layer: Name of the layer Grad-CAM looks at. null = the network's own target layer, features.29 in VGG16.
        rectify: Whether what is negative in Grad-CAM's map is cut off, as in the paper.

    Reference: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017.
    """

    meaning = "Guided Grad-CAM. The product of the two: the sharp pixels, inside the regions of the class."

    def __init__(self, layer: Text | None = None, rectify: bool = True) -> None:
        self.layer = layer
        self.rectify = rectify

    def needs(self, network: Network) -> Needs:
        check_guided_rule(network)
        layer = network.target_layer_for(type(self).__name__, self.layer)
        return Needs(layer_gradients={layer}, guided_gradient=True)

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return GradCAM(self.layer, self.rectify)(forward_pass) * forward_pass.guided_gradient()
