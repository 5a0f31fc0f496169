"""Images that are made in one go, since they share each forward pass: which they are, and how they fare on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from datamodules.batch import UnitBatch
from lightning_modules.figures.synthesis import Growth
from lightning_modules.results.storage import Row
from lightning_modules.synthesis import Objective, Progress
from lightning_modules.text import plain_name


@dataclass(frozen=True)
class ImagePass:
    """Images of a batch that share a forward pass.

    Attributes:
        batch: Where they stand.
        members: Their numbers in it.
        objective: What is maximized in all of them.
        size: How many images the forward pass holds, at least as many as there are members.
    """

    batch: UnitBatch
    members: list[int]
    objective: Objective
    size: int

    @property
    def filled(self) -> list[int]:
        """The members, then the last of them again: an image is the same in a full pass and in the last of a run."""
        return [*self.members, *self.members[-1:] * self.size][: self.size]

    @property
    def target(self) -> Tensor:
        """The class or channel of each image of the pass, long ``(size,)``."""
        return self.batch["target"][self.filled]

    @property
    def keys(self) -> list[str]:
        """What is drawn for each image of the pass follows from its key."""
        seed, layer, target = self.batch["seed"], self.batch["layer"], self.batch["target"]
        return [f"{int(seed[i])}|{layer[i]}|{int(target[i])}" for i in self.filled]

    @property
    def named(self) -> list[Row]:
        """What is to be made as each member, in the columns of its row."""
        return [self._named(i) for i in self.members]

    def _named(self, i: int) -> Row:
        of = self.batch
        whole = {"target": int(of["target"][i]), "seed": int(of["seed"][i])}
        return {"path": of["path"][i], "name": of["name"][i], "layer": of["layer"][i], **whole}

    def files(self, variant: str | None) -> list[str]:
        """The file of each member, as a variant has it; None = there is but one."""
        stems = [self.batch["path"][i].removesuffix(".png") for i in self.members]
        return [f"{stem}_{plain_name(variant)}.png" if variant else f"{stem}.png" for stem in stems]


def passes(
    batch: UnitBatch, objective_of: Callable[[str | None], Objective], images_per_pass: int
) -> Iterator[ImagePass]:
    """The passes of a batch: only units of the same layer share one.

    Args:
        batch: What is to be made.
        objective_of: Layer, None = classes -> what is maximized.
        images_per_pass: How many images a pass holds.
    """
    by_layer: dict[str | None, list[int]] = {}
    for i, layer in enumerate(batch["layer"]):
        by_layer.setdefault(layer, []).append(i)
    for layer, members in by_layer.items():
        objective = objective_of(layer)
        for start in range(0, len(members), images_per_pass):
            yield ImagePass(batch, members[start : start + images_per_pass], objective, images_per_pass)


class Watch:
    """Notes each step of a pass.

    Args:
        growths: Where each member's growth is drawn, if it is.
        tell: Called with each step.
    """

    def __init__(self, growths: Sequence[Growth | None], tell: Callable[[Progress], None]) -> None:
        self.growths = growths
        self.tell = tell
        self._reached: Tensor | None = None

    def __call__(self, progress: Progress) -> None:
        before = self._reached
        self._reached = progress.reached if before is None else before | progress.reached
        for member, growth in enumerate(self.growths):
            if growth is not None:
                growth.add(progress, member)
        self.tell(progress)

    @property
    def reached(self) -> Tensor | None:
        """Whether the objective's gradient ever reached each image, bool ``(N,)``; None = no step was told of."""
        return self._reached
