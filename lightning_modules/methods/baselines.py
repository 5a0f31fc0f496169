"""Images that stand for no information, from which path methods begin and which occlusion shows in its windows."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.gradients.needs import Needs
from lightning_modules.host import where_float64_is
from lightning_modules.methods.variants import noise, random_numbers
from lightning_modules.random_numbers import RandomNumbers

Baseline = Literal["black", "mean", "blur", "noise"]
"""Pixels of 0; the mean that the network subtracts; the image, blurred; or noise, uniform in [0, 1]."""

COMPLETENESS = {
    "completeness_error": "How far the sum of a map is from the score that it should explain. Lower is better.",
    "relative_completeness_error": "The same as a share of that score. More than 0.05 asks for more steps.",
}
"""Columns of the rows, see :func:`completeness`: what they mean."""


def baseline_images(forward_pass: ForwardPass, kind: Baseline, seed: int) -> Tensor:
    """The baseline of each image of a pass, ``(N, 3, H, W)`` in [0, 1].

    Blurred images are so by a Gaussian whose standard deviation is a fifteenth of their shorter side, 15 pixels at 224.
    Noise follows from the seed and the image's key alone.

    Reference: Sturmfels, Lundberg & Lee, "Visualizing the Impact of Feature Attribution Baselines", Distill 2020.
    """
    images = forward_pass.images.detach()
    if kind == "black":
        return torch.zeros_like(images)
    if kind == "mean":
        return forward_pass.network.mean_pixel.to(images.dtype).expand_as(images)
    if kind == "blur":
        sigma = min(images.shape[2:]) / 15
        return gaussian_blur(images, 2 * math.ceil(3 * sigma) + 1, sigma)
    return noise(random_numbers(forward_pass, seed), slice(0, 1), images, RandomNumbers.uniform)[0]


def completeness(attribution: Tensor, forward_pass: ForwardPass, baseline: Tensor) -> dict[str, Tensor]:
    """How far maps are from what they should add up to: the difference of the targets' logits at image and baseline.

    In logits, and as a share of that difference, NaN where there is none; float64 ``(N,)`` each.
    """
    at_baseline = forward_pass.at(baseline, forward_pass.target, Needs()).target_logit
    whole, start, maps = map(where_float64_is, (forward_pass.target_logit, at_baseline, attribution))
    difference = whole.double() - start.double()
    error = (maps.double().sum((1, 2, 3)) - difference).abs()
    share = error / difference.abs().where(difference != 0, torch.nan)
    return dict(zip(COMPLETENESS, (error, share), strict=True))
