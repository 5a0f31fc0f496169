"""LayerCAM: a class activation map of any layer, and of several together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from datamodules.text import Texts
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.methods.cam import ClassActivationMap, on_pixels, sign_of
from lightning_modules.networks.network import Network

GAMMA = 2.0
"""How far the paper enlarges small values before maps of several layers are joined."""


class LayerCAM(ClassActivationMap):
    r"""LayerCAM, ``(N, 1, H, W)``, at least 0: each activation counts by its own gradient, where that is positive.

    .. math:: L = \mathrm{ReLU}\Big(\sum_k \mathrm{ReLU}\Big(\frac{\partial y}{\partial A^k}\Big) \odot A^k\Big)

    Maps of several layers are fused by the greatest value at each pixel, each brought to one scale before:

    .. math:: \hat{L} = \tanh\Big(\frac{\gamma L}{\max L}\Big), \quad \gamma = 2

    The paper enlarges so the maps of shallow layers only. Which layers are shallow no network says, so here, as in
    torch-cam, all are. It costs a backward pass that ends at the first of the layers; with the network's own layer,
    nothing beside Grad-CAM.

    Args:
        layers: Name of a layer, as for GradCAM, or of several, which are fused. null = the network's own target layer,
            features.29 in VGG16.
        rectify: Whether what is negative is cut off, as in the paper; of several layers it always is.

    Raises:
        InputError: If there is no layer in the list, or several are not to be rectified.

    Reference: Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE
    Transactions on Image Processing 2021.
    """

    meaning = "As HiResCAM, of what raises the score alone. It can look at fine layers too, and join several."

    def __init__(self, layers: Texts | None = None, rectify: bool = True) -> None:
        self.rectify = rectify
        self.sign = sign_of(rectify)
        self.layers = layers if layers is None or isinstance(layers, str) else list(layers)
        if self.layers == []:
            raise InputError("LayerCAM.layers is empty: name a layer, or give null for the network's own.")
        if not rectify and len(self._each()) > 1:
            raise InputError("LayerCAM joins maps by what is greatest there: of several layers, rectify must be true.")

    def needs(self, network: Network) -> Needs:
        check_gradient(network)
        name = type(self).__name__
        return Needs(layer_gradients={network.target_layer_for(name, layer, "layers") for layer in self._each()})

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        grids = [self.grid(forward_pass, layer) for layer in self._each()]
        if len(grids) > 1:
            largest = [grid.amax((1, 2, 3), keepdim=True) for grid in grids]
            grids = [(GAMMA * grid / top.where(top > 0, 1)).tanh() for grid, top in zip(grids, largest, strict=True)]
        return reduce(torch.maximum, [on_pixels(grid, forward_pass) for grid in grids])

    def _each(self) -> Sequence[str | None]:
        return [self.layers] if self.layers is None or isinstance(self.layers, str) else self.layers

    @staticmethod
    def weighted(activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.relu() * activation
