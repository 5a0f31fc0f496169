"""Occlusion: how much the score of the target drops when a window of the image is hidden."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_modules.errors import InputError, check_at_least_one, check_is_one_of
from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.methods.base import AttributionMethod
from lightning_modules.methods.baselines import Baseline, baseline_images
from lightning_modules.methods.variants import at_variants, shared_batches
from lightning_modules.networks.network import Network

Score = Literal["logit", "probability"]


class Occlusion(AttributionMethod):
    r"""Occlusion, ``(N, 1, H, W)``, signed: at each pixel the mean over the windows that hide it.

    .. math:: L_{ij} = \frac{1}{|\{w \ni (i, j)\}|} \sum_{w \ni (i, j)} \big(y(x) - y(x_w)\big)

    where ``y`` is the target's logit, and in ``x_w`` the window ``w`` shows the baseline. The paper has the target's
    probability: of an image of which the network is sure that is 1 in float32 whatever is hidden, and the map black.
    It costs a forward pass for each window, 225 at 224 × 224. The windows are Captum's: the first lies in the
    upper left corner, and the last ones are cut off at the edges.

    Args:
        window: Side of the square windows in pixels. null = an eighth of the image's shorter side, 28 at 224.
        stride: Pixels from one window to the next, at most a window. null = half a window.
        score: What drops: the logit, or the probability, as in the paper.
        baseline: What windows show: black, the mean that the network subtracts, the image blurred, or noise.
        max_batch: Most images in one pass. null = as many as the batch has, at least 32.
        seed: Seed of a baseline of noise.

    Raises:
        InputError: If an option is out of its range.

    Reference: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014.
    """

    meaning = "How much probability is lost when a window around a pixel is hidden."

    sign = "signed"

    def __init__(
        self,
        window: int | None = None,
        stride: int | None = None,
        score: Score = "logit",
        baseline: Baseline = "mean",
        max_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        check_at_least_one(window=window, stride=stride, max_batch=max_batch)
        check_is_one_of(Score, score=score)
        check_is_one_of(Baseline, baseline=baseline)
        if window is not None and stride is not None and stride > window:
            raise InputError(f"stride must be at most window, {window}, so that each pixel is hidden; got {stride}.")
        self.window = window
        self.stride = stride
        self.score: Score = score
        self.baseline: Baseline = baseline
        self.max_batch = max_batch
        self.seed = seed

    def needs(self, network: Network) -> Needs:
        return Needs()  # it makes passes of its own, of images with a window

    def n_passes(self, network: Network) -> int:
        rows, columns = self._windows(torch.empty(0, 3, network.input_size, network.input_size))
        return len(rows) * len(columns)

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images, baseline = forward_pass.images.detach(), baseline_images(forward_pass, self.baseline, self.seed)
        rows, columns = self._windows(images)
        # (windows, 1, 1, H, W), of which a row of windows comes after the other.
        hidden = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)[:, None, None]
        drops = images.new_empty(len(images), len(hidden))
        for part, windows in shared_batches(len(images), len(hidden), self.max_batch):
            occluded = torch.where(hidden[windows], baseline[part], images[part])
            score = self._score(at_variants(forward_pass, occluded, part)).unflatten(0, occluded.shape[:2])
            drop = self._score(forward_pass)[part] - score
            drops[part, windows] = drop.T.to(drops.dtype)
        of_windows = drops.unflatten(1, (len(rows), len(columns)))
        total = torch.einsum("nab,ah,bw->nhw", of_windows, rows.to(drops.dtype), columns.to(drops.dtype))
        return (total / (rows.sum(0)[:, None] * columns.sum(0)))[:, None]

    def _score(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.target_logit if self.score == "logit" else forward_pass.target_probability

    def _windows(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows of pixels each row of windows hides, bool ``(a, H)``; and which columns, ``(b, W)``.

        Raises:
            InputError: If a window is larger than the image, or a stride than the window.
        """
        sides = images.shape[2:]
        window = self.window or max(1, min(sides) // 8)
        stride = self.stride or max(1, window // 2)
        if window > min(sides) or stride > window:
            raise InputError(
                f"Occlusion wants a stride ≤ window ≤ the image's sides, and got {stride}, {window}, {tuple(sides)}."
            )
        both = []
        for side in sides:
            pixels = torch.arange(side, device=images.device)
            starts = torch.arange(0, side - window + stride, stride, device=images.device)[:, None]
            both.append((pixels >= starts) & (pixels < starts + window))
        return both[0], both[1]
