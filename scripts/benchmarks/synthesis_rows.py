"""The row of activation maximization, against lucent."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.setting import Peer, Setting
from benchmarks.timing import Row, assert_close
from lightning_modules import Network
from lightning_modules.synthesis import (
    ClassLogit,
    FourierImage,
    RandomRotation,
    RandomScale,
    RandomShift,
    Recipe,
    maximize,
)


def activation_maximization(setting: Setting, steps: int = 4) -> Row:
    """Steps of gradient ascent on a Fourier image of one class under shifts, scales and rotations."""
    size = setting.network.input_size
    transforms = [RandomShift(4), RandomScale(0.9, 1.1), RandomRotation(10), RandomShift(2)]
    recipe = Recipe(FourierImage(0.01), [], transforms, steps, 0.05)

    def ours(network: Network, images: Tensor, target: Tensor) -> Tensor:
        return maximize(network, ClassLogit(), target, recipe, (size, size), ["benchmark"])

    def lucent(network: Network, images: Tensor, target: Tensor) -> Any:
        from lucent.optvis import objectives, param, render, transform

        # Of the ranges that ours have; the network normalizes by itself.
        theirs = [
            transform.jitter(8),
            transform.random_scale([1 + k / 50 for k in range(-5, 6)]),
            transform.random_rotate(list(range(-10, 11))),
            transform.jitter(4),
        ]
        options = {"progress": False, "show_image": False, "fixed_image_size": size, "preprocess": False}
        logit = objectives.channel("module_classifier_6", 0)
        how: Any = {"transforms": theirs, "thresholds": (steps,), **options}
        return render.render_vis(network, logit, lambda: param.image(size), **how)

    def bare(images: Tensor, target: Tensor) -> None:
        for _ in range(steps):
            setting.bare_gradient(images, target)

    def check() -> str:
        from lucent.optvis import param

        (theirs,), image = param.image(size)
        mine = FourierImage().pixels(theirs.detach().cpu() * 50, (size, size))
        theirs.data.mul_(50)  # far from grey, where errors would show
        return assert_close(mine, image().detach().cpu(), 1e-4, "images of the same parameters")

    work = "activation maximization, a step of 1 image: Fourier image, shift, scale, rotation, shift"
    bares, peers = {"bare forward + backward": bare}, [Peer("lucent", lucent, 2, 2)]
    return setting.row("activation_maximization", work, 1, ours, bares, peers, check, at_most=1.1, units=steps)
