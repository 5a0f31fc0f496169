"""The public front: from a network and images to the maps of several methods, by one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import or_
from typing import Protocol

from torch import Tensor

from lightning_modules.errors import InputError, check_objects
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.gradients.rectifiers import check_guided_rule
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.cam import map_and_grid, warn_of_black
from lightning_modules.networks.inputs import Target, is_trusted, trusted
from lightning_modules.networks.network import Network, check_network


class Explanation(dict[str, Tensor]):
    """Maps ``(N, C, H, W)`` of a batch by the names of their methods, detached, raw.

    Attributes:
        forward_pass: The pass that they explain, with its logits and targets.
        grids: The same maps before they were enlarged: class activation maps on the positions of their layer, ``(N, 1,
            h, w)``; all others as they are.
    """

    def __init__(self, forward_pass: ForwardPass) -> None:
        super().__init__()
        self.forward_pass = forward_pass
        self.grids: dict[str, Tensor] = {}


def explain(
    network: Network,
    images: Tensor,
    methods: Sequence[AttributionMethod],
    target: Target = None,
    *,
    keys: Sequence[str] | None = None,
    needs: Needs | None = None,
) -> Explanation:
    """The maps of all methods, from one forward pass that keeps what they need.

    Args:
        network: From pixels in [0, 1] to logits; see ``load_network`` and ``as_network``.
        images: Pixels in [0, 1], ``(N, 3, H, W)``.
        methods: Their maps are named by their ``repr``: ``"GradCAM"``, ``"SmoothGrad(n_samples=50)"``.
        target: The class to explain, by its index, name or WordNet id: one for all images, or N of them, as a tensor
            ``(N,)`` of indices. None = the predicted class of each.
        keys: A string for each image, such as its path, from which methods seed their noise. None takes a hash of the
            pixels.
        needs: What else is going to be read of the pass, as by a metric or an attack.

    Raises:
        InputError: If an input is wrong, a method is named twice, or a method gives no map of the images' size.

    Example:
        >>> import torch
        >>> from lightning_modules import GradCAM, GuidedBackprop, load_vgg16
        >>> images = torch.rand(2, 3, 112, 112)
        >>> maps = explain(load_vgg16("shapes"), images, [GradCAM(), GuidedBackprop()], target=3)
        >>> {name: tuple(map_.shape) for name, map_ in maps.items()}
        {'GradCAM': (2, 1, 112, 112), 'GuidedBackprop': (2, 3, 112, 112)}
    """
    check_network(network)
    check_objects(AttributionMethod, "method", methods)
    names = [repr(method) for method in methods]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]} is named twice among the methods.")
    wanted = joined_needs(network, methods)
    wanted = wanted if needs is None else wanted | needs
    explanation = Explanation(ForwardPass(network, images, target, needs=wanted, keys=keys))
    with trusted():
        for name, method in zip(names, methods, strict=True):
            explanation[name], explanation.grids[name] = map_and_grid(method, explanation.forward_pass)
            _check_map(name, explanation[name], images)
    if not is_trusted():
        warn_of_black(methods, list(explanation.values()), explanation.forward_pass)
    return explanation


class Reader(Protocol):
    """Whoever reads a forward pass: a method, a metric."""

    def needs(self, network: Network) -> Needs: ...


def joined_needs(network: Network, readers: Iterable[Reader]) -> Needs:
    """What all of them read of a pass of ``network``.

    Raises:
        InputError: If the network has not what one of them needs.
    """
    needs = reduce(or_, (reader.needs(network) for reader in readers), Needs())
    if needs.guided_gradient:
        check_guided_rule(network)
    return needs


def _check_map(name: str, attribution: Tensor, images: Tensor) -> None:
    n, _, height, width = images.shape
    if attribution.ndim != 4 or attribution.shape[0] != n or attribution.shape[2:] != (height, width):
        raise InputError(
            f"The method {name} gave a map of shape {tuple(attribution.shape)}; it should give (N, C, H, W) with "
            f"N = {n}, H = {height}, W = {width}."
        )
