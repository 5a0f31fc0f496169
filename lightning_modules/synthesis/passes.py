"""Which images of a batch are optimized together, since they share each forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.batch import UnitBatch
from lightning_modules.synthesis.objectives import Objective


class ImagePass(NamedTuple):
    """Images of a batch that share a forward pass.

    Attributes:
        objective: What is maximized in all of them.
        size: How many images the forward pass holds, at least as many as there are rows.
        rows: ``path``, ``name``, ``layer``, ``target`` and ``seed`` of each image.
        numbers: The number of each image in the batch.
        indices: The number of each image in the run.
    """

    objective: Objective
    size: int
    rows: list[dict[str, Any]]
    numbers: list[int]
    indices: list[int]

    @property
    def filled(self) -> list[dict[str, Any]]:
        """The rows, and the last one again: an image is the same in a full pass and in the last one of a run."""
        return [*self.rows, *self.rows[-1:] * self.size][: self.size]

    @property
    def target(self) -> Tensor:
        """The class or channel of each image of the pass, long ``(size,)``."""
        return torch.tensor([row["target"] for row in self.filled])

    @property
    def keys(self) -> list[str]:
        """The key of each image of the pass, from which its random numbers follow."""
        return [f"{row['seed']}|{row['layer']}|{row['target']}" for row in self.filled]


def passes_of(batch: UnitBatch, objective_of: Callable[[str | None], Objective], size: int) -> list[ImagePass]:
    """The passes of a batch: only units of the same layer share one.

    Args:
        batch: What is to be made; on the host.
        objective_of: Layer, None = classes -> what is maximized.
        size: How many images a pass holds.
    """
    columns = batch["path"], batch["name"], batch["layer"], batch["target"].tolist(), batch["seed"].tolist()
    rows = [dict(zip(("path", "name", "layer", "target", "seed"), row)) for row in zip(*columns)]
    indices = batch["index"].tolist()
    by_layer: dict[str | None, list[int]] = {}
    for i, layer in enumerate(batch["layer"]):
        by_layer.setdefault(layer, []).append(i)
    return [
        ImagePass(objective_of(layer), size, [rows[i] for i in part], part, [indices[i] for i in part])
        for layer, members in by_layer.items()
        for part in (members[start : start + size] for start in range(0, len(members), size))
    ]
