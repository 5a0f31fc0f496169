"""Does the map depend on what the network has learnt? The sanity check of cascading weight randomization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.explain import explain
from lightning_modules.methods.maps import relative_magnitude
from lightning_modules.metrics.base import AttributionMetric
from lightning_modules.metrics.forgetting import cascade, weighted_layers
from lightning_modules.metrics.similarity import Ranking, rank_correlation
from lightning_modules.networks.network import Network

FAILING_CORRELATION = 0.5
"""A method fails when its maps stay more alike than this to the trained network's, on average over the cascade."""

OF_SEEDS = "randomization_correlation_of_seeds"
"""The list of the mean rank correlations under each seed, where there are several."""


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
        strength = relative_magnitude(maps)
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

    With several seeds curves and scores are means over them. The means of each seed stand in
    ``randomization_correlation_of_seeds``, and where they lie on both sides of 0.5 the method is reported as undecided.

    Each step makes the maps anew, so this costs as many evaluations as there are layers (16 in VGG16), for each seed.

    Args:
        layers: Layers to randomize, in this order. null = all that have learnt something, from the output down.
        seed: Seed of the random weights; of several, the first.
        n_seeds: How often the network forgets, each time with weights from the next seed; at least 1.

    Reference: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018; magnitudes are compared.
    """

    columns = ("randomization_correlation", "randomization_ssim")
    curves: tuple[str, ...] = ("randomization_correlation_curve", "randomization_ssim_curve")
    lower_is_better = (*columns, *curves, OF_SEEDS)

    def __init__(self, layers: Sequence[str] | None = None, seed: int = 0, n_seeds: int = 1) -> None:
        check_at_least_one(n_seeds=n_seeds)
        self.layers = None if layers is None else list(layers)
        self.seed = seed
        self.n_seeds = n_seeds
        if n_seeds > 1:
            self.curves = (*type(self).curves, OF_SEEDS)

    def needs(self, network: Network) -> Needs:
        self.layers_of(network)  # refuses unknown layers before the first batch
        return Needs()

    def layers_of(self, network: Network) -> list[str]:
        """The layers of ``network`` that are randomized, in order.

        Raises:
            InputError: If the network has no such layer, or one has no weights.
        """
        possible = weighted_layers(network)
        if not possible:
            raise InputError(
                f"WeightRandomization cannot randomize {network.name}: its logits depend on no parameters."
            )
        layers = possible if self.layers is None else self.layers
        if unknown := [name for name in layers if name not in possible]:
            raise InputError(f"WeightRandomization cannot randomize {unknown[0]!r}; it can: {', '.join(possible)}.")
        return layers

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        layers = self.layers_of(forward_pass.network)
        seeds = range(self.seed, self.seed + self.n_seeds)
        # (N, steps, seeds)
        correlation, similarity = (
            torch.stack(curves, 2)
            for curves in zip(*(self._curves(attribution, forward_pass, method, layers, seed) for seed in seeds))
        )
        scores = {name: of.nanmean(2) for name, of in zip(type(self).curves, (correlation, similarity))}
        scores |= {name: of.nanmean(1).nanmean(1) for name, of in zip(self.columns, (correlation, similarity))}
        return scores | ({OF_SEEDS: correlation.nanmean(1)} if self.n_seeds > 1 else {})

    @staticmethod
    def _curves(
        attribution: Tensor, forward_pass: ForwardPass, method: AttributionMethod, layers: Sequence[str], seed: int
    ) -> tuple[Tensor, Tensor]:
        """Rank correlation and SSIM at each step of a cascade, ``(N, steps)`` each."""
        correlation, similarity, ranking = [], [], Ranking(attribution)
        for _, random in cascade(forward_pass.network, layers, seed):
            maps = explain(random, forward_pass.images, [method], forward_pass.target, keys=forward_pass.keys)
            (changed,) = maps.values()
            correlation.append(rank_correlation(ranking, changed))
            similarity.append(structural_similarity(attribution, changed))
        return torch.stack(correlation, 1), torch.stack(similarity, 1)
