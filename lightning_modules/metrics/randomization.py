"""Does the map depend on what the network has learnt? The sanity check of cascading weight randomization."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from datamodules.batch import Batch
from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.explain import explain
from lightning_modules.methods.maps import magnitude
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.metrics.similarity import rank_correlation
from lightning_modules.networks.network import Network

FAILING_CORRELATION = 0.5
"""A method fails when its maps stay more alike than this to the trained network's, on average over the cascade."""


def weighted_layers(network: Network) -> list[str]:
    """Names of the convolutions and linear layers, from the output down: the order of the cascade."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    return [name for name, layer in network.layers.items() if isinstance(layer, kinds)][::-1]


def cascade(network: Network, layers: Sequence[str], seed: int = 0) -> Iterator[tuple[str, Network]]:
    """Randomizes one layer after the other, keeping what was randomized, and yields the layer's name and the network.

    It is one copy of ``network`` that changes from step to step; ``network`` itself is left alone. Weights are drawn as
    He et al. (ICCV 2015) do, biases are zero; each layer's from ``seed`` and its name's place in ``layers`` alone.
    """
    # What is made under inference mode, as in Lightning's test loop, has no gradients.
    with torch.inference_mode(False):
        random = copy.deepcopy(network)
    for number, name in enumerate(layers):
        _randomize(random.layers[name], torch.Generator().manual_seed(seed * 1000 + number))
        yield name, random


@torch.inference_mode(False)
@torch.no_grad()
def _randomize(module: nn.Module, generator: torch.Generator) -> None:
    for parameter in module.parameters():
        # Drawn on the CPU, so that every kind of device gets the same network.
        drawn = torch.zeros(parameter.shape)
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(drawn, generator=generator)
        parameter.copy_(drawn)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of the magnitudes of two batches of maps, each scaled to a maximum of 1; at most 1, ``(N,)``.

    NaN where a map is zero everywhere or not finite.

    Reference: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004.

    Example:
        >>> maps = torch.rand(2, 1, 16, 16)
        >>> structural_similarity(maps, 3 * maps)
        tensor([1., 1.])
    """
    scaled, usable = [], []
    for maps in (a, b):
        strength = magnitude(maps)
        top = strength.amax((1, 2), keepdim=True)
        usable.append((top.isfinite() & (top > 0)).flatten())
        scaled.append((strength / top).nan_to_num(0, 0, 0)[:, None].float())
    similarity = structural_similarity_index_measure(scaled[0], scaled[1], data_range=1.0, reduction="none")
    return torch.as_tensor(similarity).reshape(-1).where(usable[0] & usable[1], torch.nan)


class WeightRandomization(AttributionMetric):
    """How alike the maps stay when the network forgets what it has learnt, layer by layer from the output down.

    The curves compare, at each step of the cascade, the map with that of the trained network, by rank correlation and
    by SSIM; ``randomization_correlation`` and ``randomization_ssim`` are their means over the steps at which both
    maps show something. A method that explains the network must change at once, for its output is random from the
    first step on; one whose mean rank correlation stays above 0.5 is reported as failing.

    Each step makes the maps anew, so this costs as many evaluations as there are layers (16 in VGG16).

    Args:
        layers: Layers to randomize, in this order. null = all convolutions and linear layers from the output down.
        seed: Seed of the random weights.

    Reference: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018; magnitudes are compared.
    """

    columns = ("randomization_correlation", "randomization_ssim")
    curves = ("randomization_correlation_curve", "randomization_ssim_curve")

    def __init__(self, layers: Sequence[str] | None = None, seed: int = 0) -> None:
        self.layers = None if layers is None else list(layers)
        self.seed = seed

    def needs(self, network: Network) -> Needs:
        self.layers_of(network)  # refuses unknown layers before the first batch
        return Needs()

    def layers_of(self, network: Network) -> list[str]:
        """The layers of ``network`` that are randomized, in order.

        Raises:
            InputError: If the network has no such layer, or one has no weights.
        """
        possible = weighted_layers(network)
        layers = possible if self.layers is None else self.layers
        if unknown := [name for name in layers if name not in possible]:
            raise InputError(f"WeightRandomization cannot randomize {unknown[0]!r}; it can: {', '.join(possible)}.")
        return layers

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        correlation, similarity = [], []
        for _, random in cascade(forward_pass.network, self.layers_of(forward_pass.network), self.seed):
            maps = explain(random, forward_pass.images, [method], forward_pass.target, keys=forward_pass.keys)
            (changed,) = maps.values()
            correlation.append(rank_correlation(attribution, changed))
            similarity.append(structural_similarity(attribution, changed))
        curves = torch.stack(correlation, 1), torch.stack(similarity, 1)
        means = (curve.nanmean(1) for curve in curves)
        return {**dict(zip(self.curves, curves)), **dict(zip(self.columns, means))}
