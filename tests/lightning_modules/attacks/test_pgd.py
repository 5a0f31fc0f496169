"""PGD against cleverhans and FGSM."""

from __future__ import annotations

import copy

import numpy as np
import torch
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import FGSM, PGD, Network
from tests.lightning_modules.attacks.linear import Gradients, differing_signs


def test_pgd_equals_cleverhans(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    network = copy.deepcopy(shapes_network)
    theirs = projected_gradient_descent(
        Gradients(network), big_images[:3], 0.25, 0.0625, 3, np.inf, 0, 1, y=labels[:3], rand_init=False
    )
    ours = PGD(n_steps=3)(shapes_network, big_images[:3], labels[:3], 0.25)
    assert differing_signs(ours, theirs.detach(), big_images[:3]) < 1e-3


def test_pgd_of_one_whole_step_is_fgsm(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    for norm in ("inf", 2):
        pgd = PGD(norm, n_steps=1, relative_step=1)(shapes_network, big_images, labels, 0.25)
        torch.testing.assert_close(pgd, FGSM(norm)(shapes_network, big_images, labels, 0.25), rtol=0, atol=1e-6)


def test_pgd_beats_fgsm(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    losses = [
        float(F.cross_entropy(shapes_network(attack(shapes_network, big_images, labels, 4 / 255)), labels))
        for attack in (FGSM(), PGD())
    ]
    assert losses[1] > losses[0]
