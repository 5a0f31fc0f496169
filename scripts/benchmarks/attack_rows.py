"""The row of FGSM, against torchattacks and cleverhans."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from benchmarks.setting import Peer, Setting
from benchmarks.timing import Row
from lightning_modules import FGSM, ForwardPass, Network

EPS = [k / 255 for k in (1, 2, 4, 8, 16)]


def fgsm(setting: Setting) -> Row:
    """Adversarial images at five budgets, and the network's answer to each."""
    n = max(1, setting.batch_size // 4)
    # Each budget takes them a forward and a backward pass, and a forward pass for the prediction.
    passes = 3 * len(EPS), 2 + len(EPS)
    peers = [Peer("torchattacks in a loop", _torchattacks, *passes), Peer("cleverhans in a loop", _cleverhans, *passes)]

    def bare(images: Tensor, target: Tensor) -> None:
        setting.bare_gradient(images, target)
        for _ in EPS:
            setting.bare_forward(images)

    def check() -> str:
        # Where a gradient is zero to rounding, its sign is anyone's guess.
        exact = setting.exact.images(1).requires_grad_()
        loss = torch.nn.functional.cross_entropy(setting.exact.network(exact), setting.target(1))
        magnitude = torch.autograd.grad(loss, exact)[0].abs()
        one = setting.images(1), setting.target(1)
        is_sure = magnitude > magnitude.median() / 20
        ours = _ours(setting.network, *one)[0]
        for peer in peers:
            same = ((ours - peer.run(setting.prepared, *one)[0]).abs() <= 1e-6)[:, is_sure].float().mean()
            if not same > 0.999:  # nor is the patch where a rounding opens or closes a ReLU
                raise AssertionError(f"Of {peer.name}'s adversarial pixels only {same:.2%} are ours.")
        sure = is_sure.float().mean()
        return (
            f"more than 99.9 % of adversarial pixels equal to 1e-6, of the {sure:.1%} with more gradient than rounding"
        )

    work = f"FGSM over {len(EPS)} budgets with the prediction at each, fp32, batch {n}"
    return setting.row("fgsm", work, n, _ours, {"bare forward + backward and 5 forwards": bare}, peers, check)


def _ours(network: Network, images: Tensor, target: Tensor) -> list[Tensor]:
    attack = FGSM()
    sweep = attack.sweep(ForwardPass(network, images, needs=attack.needs(network)), target, EPS)
    return _answered(network, sweep.adversarial)


def _torchattacks(network: Network, images: Tensor, target: Tensor) -> list[Tensor]:
    import torchattacks

    return _answered(network, [torchattacks.FGSM(network, eps=eps)(images, target) for eps in EPS])


def _cleverhans(network: Network, images: Tensor, target: Tensor) -> list[Tensor]:
    from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

    adversarial = [
        fast_gradient_method(network, images, eps, np.inf, clip_min=0, clip_max=1, y=target).detach() for eps in EPS
    ]
    network.zero_grad()
    return _answered(network, adversarial)


@torch.no_grad()
def _answered(network: Network, adversarial: list[Tensor]) -> list[Tensor]:
    """The images, stacked, and the network's answers to them."""
    images = [image.contiguous(memory_format=torch.channels_last) for image in adversarial]
    return [torch.stack(adversarial), *(network(image) for image in images)]
