"""DeepLift, by Captum. Nothing else imports it."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs, check_gradient
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.baselines import COMPLETENESS, baseline_images, completeness
from lightning_modules.networks.enabled import gradients_enabled
from lightning_modules.networks.network import Network

INSTALL = "pip install 'vgg-lens[captum]' (that is, captum)"

_ACTIVATIONS = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Softplus, nn.Tanh)
_WITH_RULE = (*_ACTIVATIONS, nn.Softmax, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
"""Modules of which Captum has a rule; of a class derived from one it has none."""


class DeepLift(AttributionMethod):
    r"""DeepLift by its rescale rule, ``(N, 3, H, W)``, signed; by Captum, on the module at normalized pixels.

    .. math:: L = (x - x') \odot m, \quad m_{\text{in}} = m_{\text{out}} \cdot
        \frac{f(x) - f(x')}{x - x'} \text{ at each activation } f

    The baseline ``x'`` is the mean pixel. The map adds up to the difference of the target's logits at the image and at
    the baseline; how far it is from it stands in the rows: ``completeness_error`` in logits (Captum's convergence
    delta), ``relative_completeness_error`` as a share. Norms and products of activations, for which there is no rule,
    show there.

    Captum hooks modules. So what is no module of its own, what runs twice, and activations without a rule are refused:
    their true gradient would be taken in silence. So is max-pooling whose windows overlap, as those of AlexNet and
    ResNet: where two share their maximum, Captum counts one. Images are explained one by one, for a max-pooling of
    Captum 0.9 mixes up those of a batch; a GPU is waited for at each.

    Raises:
        InputError: If Captum is not installed, or the network has what it has no rule for.

    Reference: Shrikumar, Greenside & Kundaje, "Learning Important Features Through Propagating Activation Differences",
    ICML 2017.
    """

    meaning = "What each pixel adds to the score, beside an image of the mean colour, by the differences that it makes."
    column_meanings = COMPLETENESS
    columns = tuple(COMPLETENESS)
    lower_is_better = columns
    sign = "signed"

    def needs(self, network: Network) -> Needs:
        _captum()
        check_gradient(network)
        _check_has_rules(network)
        return Needs()  # it makes passes of its own

    def n_passes(self, network: Network) -> int:
        return 3  # the image and the baseline, and this again for the error

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        network = forward_pass.network
        lift, baseline = _captum().DeepLift(network.original), baseline_images(forward_pass, "mean", 0)
        maps = torch.empty_like(baseline)
        with gradients_enabled(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Setting forward, backward hooks")
            for i, (image, start, target) in enumerate(zip(forward_pass.images, baseline, forward_pass.target)):
                pixels = network.normalized(image[None].detach()).requires_grad_()
                maps[i] = lift.attribute(pixels, network.normalized(start[None]), target=target.view(1)).detach()[0]
        return maps

    def extra_columns(self, attribution: Tensor, forward_pass: ForwardPass) -> dict[str, Tensor]:
        return completeness(attribution, forward_pass, baseline_images(forward_pass, "mean", 0))


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError:
        raise InputError(f"DeepLift is Captum's: {INSTALL}.") from None
    return attr


def _check_has_rules(network: Network) -> None:
    """Refuses a network on which Captum's DeepLift would be something else.

    Raises:
        InputError: If it is one; names what it has no rule for.
    """
    calls, found = network.facts.calls, network.facts.nonlinearities
    hooked = {name: layer for name, layer in network.layers.items() if type(layer) in _WITH_RULE}
    if reused := [name for name in hooked if len(calls.get(name, ())) > 1]:
        raise InputError(
            f"DeepLift wants a module of its own for each activation and pooling, and {network.name} runs "
            f"{reused[0]!r} {len(calls[reused[0]])} times ({len(reused)} such modules). Take IntegratedGradients."
        )
    overlapping = [name for name, layer in hooked.items() if _overlaps(layer) and calls.get(name)]
    modules = Counter(type(hooked[name]).__name__ for name in hooked if calls.get(name))
    known = {layer.__name__ for layer in _ACTIVATIONS}
    ran = {**found.rectifiers, **found.others, **found.unknown}
    problem = ""
    if without := [name for name in ran if name not in known]:
        problem = f"it has no rule for {', '.join(without)}"
    elif overlapping:
        problem = f"of the max-pooling {overlapping[0]!r}, whose windows overlap, it counts one window alone"
    elif hidden := {name: n - modules[name] for name, n in ran.items() if n > modules[name]}:
        problem = "it sees modules alone, and functions are " + ", ".join(f"{n} {name}" for name, n in hidden.items())
    if problem:
        raise InputError(f"DeepLift of {network.name} would be something else: {problem}. Take IntegratedGradients.")
    if network.outputs not in ("logits", "independent"):
        raise InputError(
            f"DeepLift explains what the module gives, and {network.name} gives no logits of each class (model.outputs "
            f"is {network.outputs}). Take IntegratedGradients."
        )


def _overlaps(layer: nn.Module) -> bool:
    if not isinstance(layer, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d):
        return False
    sides, steps = (np.broadcast_to(of, 3) for of in (layer.kernel_size, layer.stride))
    return bool((sides > steps).any())
