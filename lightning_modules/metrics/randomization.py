"""Does the map depend on what the network has learnt? The sanity check of cascading weight randomization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError, check_at_least_one
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.explain import explain
from lightning_modules.methods.uninformed import OtherImage
from lightning_modules.metrics.base import AttributionMetric, CurveAxes
from lightning_modules.metrics.forgetting import cascade, weighted_layers
from lightning_modules.metrics.similarity import Ranking, rank_correlation, structural_similarity
from lightning_modules.networks.network import Network

FAILING_CORRELATION = 0.5
"""A method fails when its maps stay more alike than this to the trained network's. The threshold is ours."""

FIRST, END = "randomization_correlation_first", "randomization_correlation_end"
"""The two scores of which the sanity check is a verdict."""

SEEDS = {FIRST: f"{FIRST}_of_seeds", END: f"{END}_of_seeds"}
"""The lists of these scores under each seed, where there are several."""


class WeightRandomization(AttributionMetric):
    """How alike the maps stay when the network forgets what it has learnt, layer by layer from the output down.

    The curves compare, at each step of the cascade, the map with that of the trained network, by rank correlation and
    by SSIM. Of each, four scores stand in the rows:

    - ``randomization_correlation``: the mean over the steps;
    - ``randomization_correlation_first``: after the first step. The output is random from then on, so the map of a
      method that explains it must change at once;
    - ``randomization_correlation_end``: after the last step, when all is forgotten;
    - ``randomization_correlation_floor``: how alike the maps of different images are, of the trained network. Below
      that nothing can be asked for. The other image is the same one turned or mirrored, whose map is not turned
      back, so that the floor is the same however the work is split: see :class:`OtherImage`.

    A method fails the sanity check if its maps' rank correlation stays above 0.5 after the first step or after the
    last. Neither the paper nor anybody else gives a threshold: this one is ours. Where the 95 % interval over the
    images, or over the seeds, reaches across it, the check is undecided.

    A step at which a map is degenerate has no value, and the means are over the others. With several seeds curves and
    scores are means over them, and what is tested stands of each seed in ``randomization_correlation_first_of_seeds``
    and ``randomization_correlation_end_of_seeds``.

    Each step makes the maps anew, so this costs as many evaluations as there are layers (16 in VGG16), for each seed,
    and one for the floor.

    Args:
        layers: Layers to randomize, in this order. null = all that have learnt something, from the output down.
        seed: Seed of the random weights; of several, the first.
        n_seeds: How often the network forgets, each time with weights from the next seed; at least 1.

    Reference: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018; magnitudes are compared.
    """

    column_meanings: ClassVar[dict[str, str]] = {
        "randomization_correlation": "How alike a map stays while the network forgets what it has learnt, on average "
        "over the layers. A map that stays the same does not explain the network. Lower is better.",
        "randomization_correlation_first": "The same when only the last layer has forgotten. The map must change at "
        "once.",
        "randomization_correlation_end": "The same when all is forgotten.",
        "randomization_correlation_floor": "How alike the maps of different images are. Less cannot be asked for.",
        "randomization_ssim": "How alike the two maps look while the network forgets, on average over the layers.",
        "randomization_ssim_first": "The same when only the last layer has forgotten.",
        "randomization_ssim_end": "The same when all is forgotten.",
        "randomization_ssim_floor": "How alike the maps of different images look. Less cannot be asked for.",
    }
    columns = tuple(
        f"randomization_{kind}{of}" for kind in ("correlation", "ssim") for of in ("", "_first", "_end", "_floor")
    )
    curves: tuple[str, ...] = ("randomization_correlation_curve", "randomization_ssim_curve")
    # Methods are ranked by the means alone: the more scores, the less can be told by each.
    neutral = tuple(name for name in columns if name.endswith(("_first", "_end", "_floor")))
    lower_is_better = (*columns, *curves, *SEEDS.values())

    def __init__(self, layers: Sequence[str] | None = None, seed: int = 0, n_seeds: int = 1) -> None:
        check_at_least_one(n_seeds=n_seeds)
        self.layers = None if layers is None else list(layers)
        self.seed = seed
        self.n_seeds = n_seeds
        if n_seeds > 1:
            self.curves = (*type(self).curves, *SEEDS.values())

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

    def curve_axes(self, curve: str, network: Network) -> CurveAxes:
        likeness = "likeness to the trained network's map"
        if curve in SEEDS.values():
            seeds = [str(self.seed + k) for k in range(self.n_seeds)]
            return CurveAxes("seed of the random weights", likeness, seeds)
        return CurveAxes("randomized from the output down to", likeness, self.layers_of(network))

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        n_evaluations = self.n_seeds * len(self.layers_of(network)) + 1  # and one of another image, for the floor
        return n_evaluations * sum(1 + method.n_passes(network) for method in methods)

    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        layers, first = self.layers_of(forward_pass.network), Ranking(attribution)

        def likeness(maps: Tensor) -> tuple[Tensor, Tensor]:
            """Rank correlation and SSIM with the trained network's maps, ``(N,)`` each."""
            # Correlations lie on the host where a device has no float64.
            correlation = rank_correlation(first, maps).float().to(attribution.device)
            return correlation, structural_similarity(attribution, maps).float()

        floors = likeness(OtherImage(method)(forward_pass))
        by_seed = [
            [likeness(maps) for maps in self._cascade(forward_pass, method, layers, seed)]
            for seed in range(self.seed, self.seed + self.n_seeds)
        ]
        scores: dict[str, Tensor] = {}
        for k, (name, floor) in enumerate(zip(("randomization_correlation", "randomization_ssim"), floors)):
            # (N, steps, seeds)
            values = torch.stack([torch.stack([step[k] for step in steps], 1) for steps in by_seed], 2)
            scores |= {name: values.nanmean(1).nanmean(1), f"{name}_first": values[:, 0].nanmean(1)}
            scores |= {f"{name}_end": values[:, -1].nanmean(1), f"{name}_floor": floor}
            scores[f"{name}_curve"] = values.nanmean(2)
            if self.n_seeds > 1 and k == 0:
                scores |= {SEEDS[FIRST]: values[:, 0], SEEDS[END]: values[:, -1]}
        return scores

    @staticmethod
    def _cascade(
        forward_pass: ForwardPass, method: AttributionMethod, layers: Sequence[str], seed: int
    ) -> Iterator[Tensor]:
        """The maps at each step."""
        for _, random in cascade(forward_pass.network, layers, seed):
            maps = explain(random, forward_pass.images, [method], forward_pass.target, keys=forward_pass.keys)
            yield from maps.values()
