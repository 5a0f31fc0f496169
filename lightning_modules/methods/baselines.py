"""Images that stand for no information, from which path methods begin and which occlusion shows in its windows."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from lightning_modules.gradients.forward_pass import ForwardPass
from lightning_modules.methods.variants import noise, random_numbers
from lightning_modules.random_numbers import RandomNumbers

Baseline = Literal["black", "mean", "blur", "noise"]
"""Pixels of 0; the mean that the network subtracts; the image, blurred; or noise, uniform in [0, 1]."""


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
