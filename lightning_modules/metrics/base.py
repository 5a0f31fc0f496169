"""What a score of attribution maps is, and what becomes of maps that show nothing.

A map is degenerate when it is constant, up to rounding, or not finite: it says of no pixel that it matters more than
another. No score is given for it, neither a bad one nor a middling one: every column and every point of a curve is NaN,
of our scores and, in a run, of anybody's. A score that reads only a part of the map, such as what is positive, gives
none either where that part is constant. So each mean is of the maps that show something, and says of how many; the rows
mark the others, column ``degenerate``, and the report counts them, also where methods are ranked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.maps import shows_something
from lightning_modules.networks.network import Network
from lightning_modules.text import NamedByOptions


class CurveAxes(NamedTuple):
    """The axes of the figure of a curve.

    Attributes:
        x_label: Of the points.
        y_label: Of the values.
        names: Of the points; None = they have none.
        positions: Of the points; None = at equal distances.
    """

    x_label: str
    y_label: str
    names: Sequence[str] | None = None
    positions: Sequence[float] | None = None


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

    column_meanings: ClassVar[Mapping[str, str]] = {}
    """Column -> what it means, in one line; pages show it below the tables."""

    lower_is_better: tuple[str, ...] | None = None
    """Those columns and curves of which less is better; of all others more is. None = the metric does not say it, and
    methods are not ranked by it."""

    neutral: tuple[str, ...] = ()
    """Those columns by which no method is ranked, as they say what to compare others with, or how far to trust them."""

    def needs(self, network: Network) -> Needs:
        """What the metric reads of the pass of ``network`` that the maps explain; unless it says otherwise, the logits.

        Raises:
            InputError: If the network has not what the metric needs.
        """
        return Needs()

    def n_passes(self, network: Network, methods: Sequence[AttributionMethod]) -> int:
        """How many images it shows ``network`` for the maps of one, of all methods, so that a run can say how long."""
        return 0

    def curve_axes(self, curve: str, network: Network) -> CurveAxes:
        """The axes of the figure of one of :attr:`curves`, of maps of ``network``."""
        return CurveAxes("point", curve.replace("_", " "))

    def notes(self, methods: Mapping[str, AttributionMethod]) -> list[str]:
        """What a reader of the scores should know, in sentences below them.

        Args:
            methods: Those whose maps are scored, by their names.
        """
        return []

    @abstractmethod
    def score(
        self, attribution: Tensor, forward_pass: ForwardPass, batch: Batch, method: AttributionMethod
    ) -> dict[str, Tensor]:
        """The scores of each map: ``(N,)`` for each column, NaN where one cannot be scored; ``(N, K)`` for each curve.

        Of degenerate maps all are NaN, see :func:`without_degenerate`.

        Args:
            attribution: Maps ``(N, C, H, W)``.
            forward_pass: The pass that they explain.
            batch: The batch, with its ``boxes`` ``(B, 4)``, ``box_labels`` ``(B,)`` and ``n_boxes`` ``(N,)``.
            method: The method that made the maps.
        """


def without_degenerate(scores: Mapping[str, Tensor], read: Tensor) -> dict[str, Tensor]:
    """The scores with NaN for each map that is degenerate.

    Args:
        scores: Columns ``(N,)`` and curves ``(N, K)``.
        read: What they read of the maps, ``(N, ...)``: the maps themselves, or what each pixel is worth.

    Example:
        >>> read = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, torch.inf]])
        >>> without_degenerate({"score": torch.ones(3)}, read)
        {'score': tensor([1., nan, nan])}
    """
    shows = shows_something(read.flatten(1))
    return {name: values.where(shows.view(-1, *[1] * (values.ndim - 1)), torch.nan) for name, values in scores.items()}
