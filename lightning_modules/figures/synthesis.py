"""How an optimized image grew: snapshots and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from lightning_modules.figures.saving import Drawing
from lightning_modules.figures.style import COLORS, heading, plain_text
from lightning_modules.synthesis.maximization import Progress
from lightning_modules.synthesis.regularizers import total_variation

ACTIVATION_COLOR, VARIATION_COLOR = COLORS[:2]
N_SNAPSHOTS = 7


@plain_text
def growth_figure(
    snapshots: Mapping[int, np.ndarray], activation: Sequence[float], variation: Sequence[float], title: str
) -> Figure:
    """How an image grew: snapshots of it by the number of the step, and the curves.

    Args:
        snapshots: Steps done -> uint8 ``(H, W, 3)``, in order.
        activation: The objective under the transforms, at each step.
        variation: Total variation of the image, at each step.
        title: The first line.
    """
    margin = 1.1  # inches: room for numbers of many digits, and for what they are
    width = 1.75 * len(snapshots) + 2 * margin - 0.2
    figure = Figure(figsize=(width, 4.6), dpi=110)
    grid = figure.add_gridspec(
        2, len(snapshots), height_ratios=[1, 0.9], left=margin / width, right=1 - margin / width,
        bottom=0.12, top=0.84, wspace=0.06, hspace=0.16,
    )  # fmt: skip
    heading(figure, title)
    for column, (step, pixels) in enumerate(snapshots.items()):
        axes = figure.add_subplot(grid[0, column])
        axes.imshow(pixels)
        axes.set_axis_off()
        axes.set_title(f"step {step}", fontsize=9, pad=3)
    axes = figure.add_subplot(grid[1, :])
    steps = range(1, len(activation) + 1)
    axes.plot(steps, activation, color=ACTIVATION_COLOR, linewidth=1)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("activation (transformed)", color=ACTIVATION_COLOR)
    axes.margins(x=0.01)
    other = axes.twinx()
    other.plot(steps, variation, "--", color=VARIATION_COLOR, linewidth=1)
    other.set_ylabel("total variation", color=VARIATION_COLOR)
    return figure


class Growth:
    """The numbers of an image at each step, and snapshots of it, for the figure of how it grew."""

    def __init__(self, steps: int) -> None:
        # Each snapshot after half the steps of the next: most happens early.
        self.at = sorted({max(1, round(steps / 2**k)) for k in range(N_SNAPSHOTS)})
        self.snapshots: dict[int, np.ndarray] = {}
        self.numbers: list[tuple[Tensor, Tensor]] = []

    def add(self, progress: Progress, i: int) -> None:
        """Records a step of the ``i``-th image of a pass."""
        self.numbers.append((progress.activation[i], total_variation(progress.images[i : i + 1])[0]))
        if progress.step in self.at:
            self.snapshots[progress.step] = to_uint8(progress.images[i])

    def draw(self, title: str) -> Drawing:
        """A function that draws the figure."""
        activation, variation = (torch.stack(column).tolist() for column in zip(*self.numbers))
        return partial(growth_figure, self.snapshots, activation, variation, title)


def to_uint8(image: Tensor) -> np.ndarray:
    """An image ``(3, H, W)`` as uint8 ``(H, W, 3)``; see :func:`as_bytes`."""
    return as_bytes(image).cpu().numpy()


def as_bytes(image: Tensor) -> Tensor:
    """An image ``(3, H, W)`` in 8 bits on its device, uint8 ``(H, W, 3)``.

    Values beyond 0 or 1 become black or white, NaN becomes grey.
    """
    finite = image.detach().float().nan_to_num(0.5).clamp(0, 1)
    return (finite * 255).round().byte().permute(1, 2, 0)
