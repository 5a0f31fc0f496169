"""The row of activation maximization, against lucent."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from benchmarks.setting import Setting, peer_goals
from benchmarks.timing import OURS, Contender, Goal, Row, assert_close
from lightning_modules.synthesis import (
    ClassLogit,
    FourierImage,
    RandomRotation,
    RandomScale,
    RandomShift,
    Recipe,
    maximize,
)


def activation_maximization(setting: Setting, peers: bool = True, steps: int = 4) -> Row:
    """Steps of gradient ascent on a Fourier image of one class under shifts, scales and rotations."""
    size = setting.network.input_size
    transforms = [RandomShift(4), RandomScale(0.9, 1.1), RandomRotation(10), RandomShift(2)]

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(1), setting.target(1)
        recipe = Recipe(FourierImage(0.01), [], transforms, steps, 0.05)

        def ours() -> Tensor:
            return maximize(setting.network, ClassLogit(), target, recipe, (size, size), ["benchmark"])

        def bare() -> None:
            for _ in range(steps):
                setting.bare_gradient(images, target)

        all_ = [Contender(OURS, ours, steps), Contender("bare forward + backward", bare, steps)]
        return all_ + (setting.peer("lucent", lambda network: _lucent(network, size, steps), steps) if peers else [])

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        from lucent.optvis import param

        (theirs,), image = param.image(size)
        ours = FourierImage().pixels(theirs.detach().cpu() * 50, (size, size))
        theirs.data.mul_(50)  # far from grey, where errors would show
        return assert_close(ours, image().detach().cpu(), 1e-4, "images of the same parameters")

    goals = peer_goals("lucent", 2, 2) if peers else []
    work = "activation maximization, a step of 1 image: Fourier image, shift, scale, rotation, shift"
    return Row(
        "activation_maximization", work, contenders, 1, [*goals, Goal("bare forward + backward", at_most=1.1)], check
    )


def _lucent(network: nn.Module, size: int, steps: int) -> Any:
    from lucent.optvis import objectives, param, render, transform

    # Of the ranges that ours have; the network normalizes by itself.
    transforms = [
        transform.jitter(8),
        transform.random_scale([1 + k / 50 for k in range(-5, 6)]),
        transform.random_rotate(list(range(-10, 11))),
        transform.jitter(4),
    ]
    options = {"progress": False, "show_image": False, "fixed_image_size": size}
    return render.render_vis(
        network,
        objectives.channel("module_classifier_6", 0),
        lambda: param.image(size),
        transforms=transforms,
        preprocess=False,
        thresholds=(steps,),
        **options,
    )
