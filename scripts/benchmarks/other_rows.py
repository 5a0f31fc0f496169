"""Rows of attacks, activation maximization, and insertion and deletion; torchattacks, cleverhans and lucent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row, assert_close
from lightning_modules import FGSM, VGG16, ForwardPass, GradCAM
from lightning_modules.metrics import InsertionDeletion
from lightning_modules.synthesis import (
    ClassLogit,
    FourierImage,
    RandomRotation,
    RandomScale,
    RandomShift,
    Recipe,
    maximize,
)

EPS = [k / 255 for k in (1, 2, 4, 8, 16)]


def fgsm(setting: Setting, peers: bool = True) -> Row:
    """Adversarial images at five budgets, and the network's answer to each."""
    n, bare_name = max(1, setting.batch_size // 2), "bare forward + backward and 5 forwards"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def ours() -> list[Tensor]:
            sweep = FGSM().sweep(ForwardPass(setting.network, images, layers=()), target, EPS)
            return [torch.stack(sweep.adversarial), *(setting.bare_forward(image) for image in sweep.adversarial)]

        def bare() -> None:
            setting.bare_gradient(images, target)
            for _ in EPS:
                setting.bare_forward(images)

        all_ = [Contender(OURS, ours), Contender(bare_name, bare)]
        if peers:
            all_ += [
                Contender("torchattacks in a loop", _torchattacks(setting.as_found, images, target), as_found=True),
                Contender("cleverhans in a loop", _cleverhans(setting.as_found, images, target), as_found=True),
            ]
        return all_

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        # Where a gradient is zero to rounding, its sign is anyone's guess.
        exact = setting.exact.images(1).requires_grad_()
        loss = torch.nn.functional.cross_entropy(setting.exact.network(exact), setting.target(1))
        magnitude = torch.autograd.grad(loss, exact)[0].abs()
        is_sure = magnitude > magnitude.median() / 20
        for name in ("torchattacks in a loop", "cleverhans in a loop"):
            same = ((outputs[OURS][0] - outputs[name][0]).abs() <= 1e-6)[:, is_sure].float().mean()
            if not same > 0.999:  # nor is the patch where a rounding opens or closes a ReLU
                raise AssertionError(f"Of {name}'s adversarial pixels only {same:.2%} are ours.")
        sure = is_sure.float().mean()
        return (
            f"more than 99.9 % of adversarial pixels equal to 1e-6, of the {sure:.1%} with more gradient than rounding"
        )

    goals = [Goal("torchattacks in a loop", faster=3.4), Goal("cleverhans in a loop", faster=4.5)] if peers else []
    work = f"FGSM over 5 budgets with the prediction at each, fp32, batch {n}"
    return Row("fgsm", work, contenders, n, [*goals, Goal(bare_name)], check)


def _torchattacks(network: VGG16, images: Tensor, target: Tensor) -> Callable[[], list[Tensor]]:
    import torchattacks

    def run() -> list[Tensor]:
        adversarial = [torchattacks.FGSM(network, eps=eps)(images, target) for eps in EPS]
        with torch.no_grad():
            return [torch.stack(adversarial), *(network(image) for image in adversarial)]

    return run


def _cleverhans(network: VGG16, images: Tensor, target: Tensor) -> Callable[[], list[Tensor]]:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    def run() -> list[Tensor]:
        adversarial = [
            fast_gradient_method(network, images, eps, np.inf, clip_min=0, clip_max=1, y=target).detach() for eps in EPS
        ]
        network.zero_grad()
        with torch.no_grad():
            return [torch.stack(adversarial), *(network(image) for image in adversarial)]

    return run


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
        return all_ + ([Contender("lucent", _lucent(setting.as_found, size, steps), steps, as_found=True)] * peers)

    def check(outputs: dict[str, Any]) -> str:
        if "lucent" not in outputs:
            return ""
        from lucent.optvis import param

        (theirs,), image = param.image(size)
        ours = FourierImage().pixels(theirs.detach().cpu() * 50, (size, size))
        theirs.data.mul_(50)  # far from grey, where errors would show
        return assert_close(ours, image().detach().cpu(), 1e-4, "images of the same parameters")

    goals = [Goal("lucent", faster=3)] if peers else []
    work = "activation maximization, a step of 1 image: Fourier image, shift, scale, rotation, shift"
    return Row(
        "activation_maximization", work, contenders, 1, [*goals, Goal("bare forward + backward", at_most=1.1)], check
    )


def _lucent(network: VGG16, size: int, steps: int) -> Callable[[], Any]:
    from lucent.optvis import objectives, param, render, transform

    def run() -> Any:
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
            objectives.channel("classifier_6", 0),
            lambda: param.image(size),
            transforms=transforms,
            preprocess=False,
            thresholds=(steps,),
            **options,
        )

    return run


def insertion_deletion(setting: Setting, peers: bool = True) -> Row:
    """Both curves of one map; the limit is the forwards of as many images in batches of the same size."""
    points, max_batch = -(-setting.network.input_size // 8) + 1, 64

    def contenders(n: int) -> list[Contender]:
        images = setting.images(n)
        forward_pass = ForwardPass(setting.network, images, setting.target(n), input_gradients=False)
        cam = GradCAM()(forward_pass)
        many = images.repeat_interleave(points, 0)

        def bare() -> None:
            for _ in range(2):
                for part in many.split(max_batch):
                    setting.bare_forward(part)

        ours = Contender(OURS, lambda: InsertionDeletion().score(cam, forward_pass, {}, GradCAM()))
        return [ours, Contender(f"{2 * points} bare forwards an image", bare)]

    work = "insertion + deletion of a map, fp32, 1 image"
    goals = [Goal(f"{2 * points} bare forwards an image", at_most=1.05)]
    return Row("insertion_deletion", work, contenders, 1, goals)
