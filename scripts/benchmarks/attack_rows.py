"""The row of FGSM, against torchattacks and cleverhans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.setting import Setting
from benchmarks.timing import OURS, Contender, Goal, Row
from lightning_modules import FGSM, ForwardPass

EPS = [k / 255 for k in (1, 2, 4, 8, 16)]


def fgsm(setting: Setting, peers: bool = True) -> Row:
    """Adversarial images at five budgets, and the network's answer to each."""
    n, bare_name = max(1, setting.batch_size // 2), "bare forward + backward and 5 forwards"

    def contenders(n: int) -> list[Contender]:
        images, target = setting.images(n), setting.target(n)

        def ours() -> list[Tensor]:
            attack, network = FGSM(), setting.network
            sweep = attack.sweep(ForwardPass(network, images, needs=attack.needs(network)), target, EPS)
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


def _torchattacks(network: nn.Module, images: Tensor, target: Tensor) -> Callable[[], list[Tensor]]:
    import torchattacks

    def run() -> list[Tensor]:
        adversarial = [torchattacks.FGSM(network, eps=eps)(images, target) for eps in EPS]
        with torch.no_grad():
            return [torch.stack(adversarial), *(network(image) for image in adversarial)]

    return run


def _cleverhans(network: nn.Module, images: Tensor, target: Tensor) -> Callable[[], list[Tensor]]:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    def run() -> list[Tensor]:
        adversarial = [
            fast_gradient_method(network, images, eps, np.inf, clip_min=0, clip_max=1, y=target).detach() for eps in EPS
        ]
        network.zero_grad()
        with torch.no_grad():
            return [torch.stack(adversarial), *(network(image) for image in adversarial)]

    return run
