"""FGSM by hand, and against cleverhans, torchattacks and foolbox."""

from __future__ import annotations

import math

import foolbox
import numpy as np
import pytest
import torch
import torchattacks
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import FGSM, Network, as_network
from tests.lightning_modules.attacks.linear import Gradients, Linear, by_hand, differing_signs
from tests.references import full_pass

SWEEP = [1 / 255, 2 / 255, 4 / 255, 8 / 255]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["inf", 2, 1])
@pytest.mark.parametrize("unsaturate", [False, True])
def test_by_hand(linear: Network[Linear], images: Tensor, norm: str | int, targeted: bool, unsaturate: bool) -> None:
    target = torch.tensor([0, 1, 2, 3, 0])
    ours = FGSM(norm, targeted, unsaturate)(linear, images, target, 0.1)
    sign = -1 if targeted else 1
    for image, label, adversarial in zip(images.numpy(), target.tolist(), ours.numpy()):
        expected = image.reshape(-1) + sign * by_hand(linear, image, label, norm, 0.1)
        np.testing.assert_allclose(adversarial.reshape(-1), expected, rtol=0, atol=1e-6)


def test_norm_1_shares_the_budget_between_ties() -> None:
    weight = torch.zeros(2, 12)
    weight[0, :5] = torch.tensor([-2.0, 2, 2, 1, -1])
    images = torch.full((1, 3, 2, 2), 0.5)
    step = FGSM(norm=1)(as_network(Linear(weight)), images, torch.tensor([0]), 0.3) - images
    torch.testing.assert_close(step.flatten()[:5], torch.tensor([0.1, -0.1, -0.1, 0, 0]))
    assert (step.flatten()[5:] == 0).all()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", ["inf", 2, 1])
def test_equals_cleverhans_called_once_per_eps(
    shapes_network: Network, big_images: Tensor, labels: Tensor, norm: str | int, targeted: bool
) -> None:
    """To the bit: also a budget that is no power of two is multiplied with the same direction."""
    target = (labels + 3) % 8 if targeted else labels
    sweep = FGSM(norm, targeted).sweep(full_pass(shapes_network, big_images), target, [*SWEEP, 0.25])
    assert not sweep.vanished.any()
    gradients = Gradients(shapes_network)
    for eps, ours in zip([*SWEEP, 0.25], sweep.adversarial):
        # ForwardPass runs in channels_last, so the same kernels have to run here. (cleverhans cannot take such images
        # where norm is 1.)
        theirs = fast_gradient_method(
            gradients, big_images, eps, math.inf if norm == "inf" else norm, 0, 1, y=target, targeted=targeted
        )
        if norm == 2:
            # It divides a gradient of another scale, so the last bit may differ, and falls short of the budget where
            # the gradient is shorter than 1e-6.
            short = (gradients.length() < 1e-6).cpu()
            torch.testing.assert_close(ours[~short], theirs[~short], rtol=0, atol=1e-7)
            assert (~short).sum() >= 2
        else:
            assert torch.equal(ours, theirs)
    assert (ours != big_images).flatten(1).any(1).all()


def test_norm_2_uses_its_whole_budget_where_cleverhans_falls_short() -> None:
    """A gradient of length 7e-6, of which cleverhans takes the batch's mean: there the step depends on the batch."""
    weight = torch.zeros(2, 12)
    weight[0] = 14 / 6
    model = as_network(Linear(weight))
    for n, length in ((1, 0.1), (64, 0.01)):
        images, target = torch.full((n, 3, 2, 2), 0.5), torch.zeros(n, dtype=torch.long)
        theirs = fast_gradient_method(model, images, 0.1, 2, y=target).detach() - images
        assert float(theirs[0].norm()) == pytest.approx(length, rel=0.1)
        assert float((FGSM(norm=2)(model, images, target, 0.1) - images)[0].norm()) == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("targeted", [False, True])
def test_equals_torchattacks(shapes_network: Network, big_images: Tensor, labels: Tensor, targeted: bool) -> None:
    target = (labels + 3) % 8 if targeted else labels
    for eps in SWEEP:
        oracle = torchattacks.FGSM(shapes_network, eps)
        if targeted:
            oracle.set_mode_targeted_by_label(quiet=True)
        ours = FGSM(targeted=targeted)(shapes_network, big_images, target, eps)
        assert differing_signs(ours, oracle(big_images, target), big_images) < 1e-4


def test_equals_foolbox(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    model = foolbox.PyTorchModel(shapes_network, bounds=(0, 1), device="cpu")
    _, theirs, _ = foolbox.attacks.FGSM()(model, big_images, labels, epsilons=SWEEP)
    sweep = FGSM().sweep(full_pass(shapes_network, big_images), labels, SWEEP)
    for ours, reference in zip(sweep.adversarial, theirs):
        assert differing_signs(ours, reference, big_images) < 1e-4


@pytest.mark.slow
def test_equals_the_oracles_on_the_full_size_network(random_vgg16: Network, big_images: Tensor) -> None:
    images = F.interpolate(big_images[:2], (96, 96), mode="bilinear").clamp(0, 1)  # it rounds beyond 1
    target = random_vgg16(images).argmax(1)
    sweep = FGSM().sweep(full_pass(random_vgg16, images), target, SWEEP[::3])
    model = foolbox.PyTorchModel(random_vgg16, bounds=(0, 1), device="cpu")
    _, theirs, _ = foolbox.attacks.FGSM()(model, images, target, epsilons=SWEEP[::3])
    for eps, ours, reference in zip(SWEEP[::3], sweep.adversarial, theirs):
        assert differing_signs(ours, reference, images) < 1e-4
        assert differing_signs(ours, torchattacks.FGSM(random_vgg16, eps)(images, target), images) < 1e-4


def test_images_alone_and_together(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    together = FGSM(2)(shapes_network, big_images, labels, 0.5)
    for i in (0, 3):
        alone = FGSM(2)(shapes_network, big_images[i : i + 1], labels[i : i + 1], 0.5)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
