"""The row of FGSM, against torchattacks and cleverhans."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.setting import Setting, peer_goals
from benchmarks.timing import LEEWAY, OURS, Contender, Goal, Row
from lightning_modules import FGSM, ForwardPass

EPS = [k / 255 for k in (1, 2, 4, 8, 16)]
TORCHATTACKS, CLEVERHANS = "torchattacks in a loop", "cleverhans in a loop"


def fgsm(setting: Setting, peers: bool = True) -> Row:
    """Adversarial images at five budgets, and the network's answer to each."""
    n, bare_name = max(1, setting.batch_size // 4), "bare forward + backward and 5 forwards"

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
        if not peers:
            return all_
        cleverhans = setting.peer(CLEVERHANS, lambda network: _cleverhans(network, images, target))
        return [
            *all_,
            *setting.peer(TORCHATTACKS, lambda network: _torchattacks(network, images, target)),
            *cleverhans,
        ]

    def check(outputs: dict[str, Any]) -> str:
        if not peers:
            return ""
        # Where a gradient is zero to rounding, its sign is anyone's guess.
        exact = setting.exact.images(1).requires_grad_()
        loss = torch.nn.functional.cross_entropy(setting.exact.network(exact), setting.target(1))
        magnitude = torch.autograd.grad(loss, exact)[0].abs()
        is_sure = magnitude > magnitude.median() / 20
        for name in (TORCHATTACKS, CLEVERHANS):
            same = ((outputs[OURS][0] - outputs[name][0]).abs() <= 1e-6)[:, is_sure].float().mean()
            if not same > 0.999:  # nor is the patch where a rounding opens or closes a ReLU
                raise AssertionError(f"Of {name}'s adversarial pixels only {same:.2%} are ours.")
        sure = is_sure.float().mean()
        return (
            f"more than 99.9 % of adversarial pixels equal to 1e-6, of the {sure:.1%} with more gradient than rounding"
        )

    # Each budget takes them a forward and a backward pass, and a forward pass for the prediction.
    goals = [goal for name in (TORCHATTACKS, CLEVERHANS) for goal in peer_goals(name, 3 * len(EPS), 2 + len(EPS))]
    work = f"FGSM over 5 budgets with the prediction at each, fp32, batch {n}"
    return Row("fgsm", work, contenders, n, [*goals * peers, Goal(bare_name, at_most=LEEWAY)], check)


def _torchattacks(network: nn.Module, images: Tensor, target: Tensor) -> list[Tensor]:
    import torchattacks

    adversarial = [torchattacks.FGSM(network, eps=eps)(images, target) for eps in EPS]
    with torch.no_grad():
        return [torch.stack(adversarial), *(network(image) for image in adversarial)]


def _cleverhans(network: nn.Module, images: Tensor, target: Tensor) -> list[Tensor]:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    adversarial = [
        fast_gradient_method(network, images, eps, np.inf, clip_min=0, clip_max=1, y=target).detach() for eps in EPS
    ]
    network.zero_grad()
    with torch.no_grad():
        return [torch.stack(adversarial), *(network(image) for image in adversarial)]
