"""What holds for every attack."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_modules import FGSM, PGD, Attack, InputError, Network, SparseL1Descent
from lightning_modules.attacks.base import check_budget
from lightning_modules.networks.inputs import check_range
from tests.lightning_modules.attacks.linear import Linear
from tests.references import full_pass


@pytest.mark.parametrize("attack", [FGSM(), FGSM(2), FGSM(1), PGD(n_steps=2), PGD(2, n_steps=2)], ids=repr)
def test_bounds_hold_and_eps_0_is_the_image(
    shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
) -> None:
    assert torch.equal(attack(shapes_network, big_images, labels, 0.0), big_images)
    for eps in (1 / 255, 0.3, 1.0):
        adversarial = attack(shapes_network, big_images, labels, eps)
        assert not adversarial.requires_grad
        linf, l2, _ = check_budget(attack, big_images, adversarial, eps)
        delta = (adversarial - big_images).double()
        torch.testing.assert_close(linf, delta.abs().amax((1, 2, 3)))
        torch.testing.assert_close(l2, delta.square().sum((1, 2, 3)).sqrt())


class Cheat(Attack):
    def __init__(self, factor: float = 1.5) -> None:
        self.factor = factor

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        return images + self.factor * eps


def test_an_attack_that_leaves_its_bounds_is_found() -> None:
    images, target = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.long)
    for factor, eps, message in (
        (1.5, 4 / 255, r"Cheat left its bounds: with eps 4/255 = 0\.0156863 it moved an image by 0\.0235"),
        (1.001, 0.1, "left its bounds"),
        (1 + 2e-6, 0.1, r"with eps 0\.1 it moved an image by 0\.1000002"),
        (1.0, 0.5 + 1e-7, r"to pixels in \[1\.0000001, 1\.0000001\]"),
        (1.0, 0.75, r"to pixels in \[1\.25, 1\.25\]"),
        (math.nan, 0.1, "by nan"),
    ):
        attack = Cheat(factor)
        with pytest.raises(InputError, match=message):
            check_budget(attack, images, attack(nn.Identity(), images, target, eps), eps)
    check_budget(Cheat(1.0), images, Cheat(1.0)(nn.Identity(), images, target, 1 / 255), 1 / 255)
    with pytest.raises(InputError, match=r"gave \(1, 3, 4, 4\) of images \(2, 3, 4, 4\)"):
        check_budget(Cheat(), images, images[:1], 0.1)


class InPlace(Attack):
    """Writes where the clean images lie."""

    def __call__(self, model: nn.Module, images: Tensor, target: Tensor, eps: float) -> Tensor:
        return images.sub_(eps).clamp_(0, 1)


def test_an_attack_may_write_into_its_images(linear: Network[Linear], images: Tensor) -> None:
    forward_pass, clean = full_pass(linear, images), images.clone()
    found = InPlace().sweep(forward_pass, torch.zeros(len(images), dtype=torch.long), [0.1, 0.2])
    assert torch.equal(forward_pass.images, clean)
    for eps, adversarial in zip((0.1, 0.2), found.adversarial):
        assert torch.equal(adversarial, (clean - eps).clamp(0, 1))
    assert not found.vanished.any()


@pytest.mark.parametrize(
    ("least", "greatest", "shown"),
    [(0, 1.0002, r"0 to 1\.0002"), (-0.001, 1, r"-0\.001 to 1"), (-2.1, 2.6, r"-2\.1 to 2\.6")],
)
def test_pixels_beside_the_range_are_told_from_it(least: float, greatest: float, shown: str) -> None:
    images = torch.tensor([least, greatest, 0.5]).reshape(1, 3, 1, 1)
    with pytest.raises(InputError, match=rf"reach from {shown}\. "):
        check_range(images)


@pytest.mark.parametrize("attack", [FGSM(), PGD(n_steps=2), SparseL1Descent(n_steps=1)], ids=repr)
def test_rounding_at_the_ends_is_none(linear: Network[Linear], attack: Attack) -> None:
    images = torch.tensor([1 + 1e-6, -1e-6, 0.5] * 4).view(1, 3, 2, 2)
    adversarial = attack(linear, images, torch.tensor([0]), 0.1)
    assert torch.equal(adversarial, attack(linear, images.clamp(0, 1), torch.tensor([0]), 0.1))
    check_budget(attack, images.clamp(0, 1), adversarial, 0.1)


def test_no_parameter_gets_a_gradient(linear: Network[Linear], images: Tensor) -> None:
    assert linear.module.weight.requires_grad
    for attack in (FGSM(), PGD(n_steps=2)):
        attack(linear, images, torch.zeros(5, dtype=torch.long), 0.1)
    assert linear.module.weight.grad is None


@pytest.mark.parametrize("attack", [FGSM(), PGD(n_steps=2)], ids=repr)
def test_under_inference_mode_and_no_grad(
    shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
) -> None:
    expected = attack(shapes_network, big_images, labels, 0.25)
    for mode in (torch.inference_mode(), torch.no_grad()):
        with mode:
            images, target = big_images.clone(), labels.clone()
            assert torch.equal(attack(shapes_network, images, target, 0.25), expected)
            sweep = attack.sweep(full_pass(shapes_network, images), target, [0.25])
            assert torch.equal(sweep.adversarial[0], expected)


@pytest.mark.parametrize("attack", [FGSM(), PGD(n_steps=2)], ids=repr)
def test_gradient_is_float32_under_autocast(
    shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
) -> None:
    exact = full_pass(shapes_network, big_images)
    logits, expected = exact.logits, attack.sweep(exact, labels, [0.25]).adversarial[0]
    with torch.autocast("cpu", torch.bfloat16):
        forward_pass = full_pass(shapes_network, big_images)
        # The evaluation itself is in bf16: else this would show nothing.
        assert not torch.equal(forward_pass.logits, logits)
        assert torch.equal(attack.sweep(forward_pass, labels, [0.25]).adversarial[0], expected)
        assert torch.equal(attack(shapes_network, big_images, labels, 0.25), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(norm=3), "norm must be one of inf, 2, 1, got 3"),
        (lambda: PGD(norm=1), "norm must be one of inf, 2, got 1"),
        (lambda: PGD(n_steps=0), "n_steps must be at least 1, got 0"),
        (lambda: PGD(relative_step=1.5), r"relative_step must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_options(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_normalized_images_are_refused(linear: Network[Linear]) -> None:
    for attack in (FGSM(), PGD()):
        with pytest.raises(InputError, match=r"reach from -2 to 3\. If they are normalized"):
            attack(linear, torch.linspace(-2, 3, 12).view(1, 3, 2, 2), torch.tensor([0]), 0.1)
