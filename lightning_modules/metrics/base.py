"""What a score of attribution maps is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.networks.network import Network
from lightning_modules.options import NamedByOptions


class AttributionMetric(NamedByOptions, ABC):
    """Scores each map of a batch; a subclass says how, under one or several columns of the rows.

    Means over a data set are taken of the rows, exactly, on any number of devices.

    To add one, derive a class in a file of your own, name its columns, and name the class on the command line by its
    import path; the README.md of this folder shows one.
    """

    columns: tuple[str, ...]
    """Names of the scores: columns of numbers in the rows."""

    curves: tuple[str, ...] = ()
    """Names of what has several numbers for each map: columns of lists in the rows."""

    lower_is_better: tuple[str, ...] | None = None
    """Those columns and curves of which less is better; of all others more is. None = the metric does not say it, and
    methods are not ranked by it."""

    def needs(self, network: Network) -> Needs:
        """What the metric reads of the pass of ``network`` that the maps explain; unless it says otherwise, the logits.

        Raises:
            InputError: If the network has not what the metric needs.
        """
        return Needs()

    @abstractmethod
    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        """The scores of each map: ``(N,)`` for each column, NaN where one cannot be scored; ``(N, K)`` for each curve.

        Args:
            attribution: Maps ``(N, C, H, W)``.
            forward_pass: The pass that they explain.
            batch: The batch, with its ``boxes`` ``(B, 4)``, ``box_labels`` ``(B,)`` and ``n_boxes`` ``(N,)``.
            method: The method that made the maps.
        """
