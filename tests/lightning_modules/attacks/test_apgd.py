"""APGD: the images of torchattacks' APGD and APGDT from the same starts, image by image."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
import torchattacks
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import APGD, PGD, ForwardPass, InputError, Network, as_network
from lightning_modules.attacks.base import check_budget
from lightning_modules.random_numbers import RandomNumbers, seed_from
from tests.lightning_modules.attacks.linear import Gradients, Linear

KEYS = ["a.png", "b.png", "c.png", "d.png"]


def theirs(oracle: Any, image: Tensor, label: Tensor, key: str, norm: Any) -> Tensor:
    """What torchattacks makes of one image, if torch draws the numbers of its key."""
    draw, name = (RandomNumbers.normal, "randn") if norm == 2 else (RandomNumbers.uniform, "rand")
    numbers = draw(RandomNumbers([seed_from(0, key)], image.device), slice(0, 9), image.shape[1:]).double()
    torch.set_default_dtype(torch.float64)  # in which it then compares the losses
    try:
        with torch.random.fork_rng(devices=[]), mock.patch.object(torch, name, side_effect=list(numbers)):
            return oracle(image, label)
    finally:
        torch.set_default_dtype(torch.float32)


def swept(attack: APGD, network: Network, images: Tensor, target: Tensor, eps: float) -> Tensor:
    seen = ForwardPass(network, images, keys=KEYS[: len(images)], needs=attack.needs(network))
    return attack.sweep(seen, target, [eps]).adversarial[0]


@pytest.mark.parametrize("norm", ["inf", 2])
@pytest.mark.parametrize("loss", ["ce", "dlr", "dlr to others"])
def test_equals_torchattacks(norm: Any, loss: str) -> None:
    """Image by image, in float64: in float32 what is rounded otherwise ends elsewhere after such long steps.

    The images are such that dlr is neither constant on the way, as where the class is third, nor next to its poles:
    there it magnifies rounding a million times and more, in torchattacks' code as in ours.
    """
    layers = [nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(576, 8)]
    network = as_network(nn.Sequential(*layers), mean=[0.5] * 3, std=[0.25] * 3, input_size=32).double().freeze()
    images = torch.rand(len(KEYS), 3, 32, 32).double()
    labels = network(images).argmax(1)
    plain = Gradients(copy.deepcopy(network)).eval()  # torchattacks turns the model back to the mode that it had
    name, eps = {"inf": ("Linf", 1 / 32), 2: ("L2", 2.0)}[norm]  # powers of two, exact in float32 too
    if loss == "dlr to others":
        attack = APGD(norm, loss="dlr", n_steps=14, n_targets=2)
        oracle: Any = torchattacks.APGDT(plain, name, eps, 14, n_classes=3)
    else:
        attack = APGD(norm, loss=loss, n_steps=14)  # type: ignore[arg-type]
        oracle = torchattacks.APGD(plain, name, eps, 14, loss=loss)
    ours = swept(attack, network, images, labels, eps)
    assert (network(ours).argmax(1) != labels).all()
    for i, key in enumerate(KEYS):
        expected = theirs(oracle, images[i : i + 1], labels[i : i + 1], key, norm)
        torch.testing.assert_close(ours[i : i + 1], expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack", [APGD(n_steps=5), APGD(2, n_steps=5, loss="dlr"), APGD(targeted=True, n_steps=5)], ids=repr
)
def test_bounds_and_batches(shapes_network: Network, big_images: Tensor, labels: Tensor, attack: APGD) -> None:
    target = (labels + 1) % 8 if attack.targeted else labels
    assert torch.equal(attack(shapes_network, big_images, target, 0.0), big_images)
    together = swept(attack, shapes_network, big_images, target, 0.05)
    check_budget(attack, big_images, together, 0.05)
    assert ((together - big_images).flatten(1).norm(p=float(attack.norm), dim=1) > 0.049).all()
    of_three = swept(attack, shapes_network, big_images[:3], target[:3], 0.05)
    assert ((of_three - together[:3]).abs() > 1e-4).float().mean() < 1e-3
    assert not torch.allclose(attack(shapes_network, big_images, target, 0.05), together, atol=1e-3)  # other keys


def test_targeted_leads_to_the_class(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    target = (labels + 1) % 8
    adversarial = APGD(targeted=True, n_steps=10)(shapes_network, big_images, target, 8 / 255)
    entropies = [F.cross_entropy(shapes_network(x), target, reduction="none") for x in (big_images, adversarial)]
    assert (entropies[1] < entropies[0]).all()


@pytest.mark.slow
def test_it_fools_more_than_pgd(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    """In as many steps, where PGD's are a quarter of the budget."""
    losses = [
        float(F.cross_entropy(shapes_network(attack(shapes_network, big_images, labels, 1 / 255)), labels))
        for attack in (PGD(n_steps=20), APGD(n_steps=20))
    ]
    assert losses[1] > losses[0]


def test_what_fools_nothing_is_the_last_of_its_way(linear: Network[Linear], images: Tensor) -> None:
    """Of a linear network that is a corner of the budget, which each step leads to."""
    label = linear(images).argmax(1)
    eps = 1e-4
    adversarial = APGD(n_steps=10)(linear, images, label, eps)
    unfooled = linear(adversarial).argmax(1) == label
    assert unfooled.sum() >= 3
    assert torch.allclose((adversarial - images).abs()[unfooled], torch.tensor(eps), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": 1}, "norm must be one of inf, 2, got 1"),
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"loss": "margin"}, "loss must be ce or dlr, got 'margin'"),
        ({"n_targets": 3, "targeted": True}, r"where the attack is targeted, 0.* Got 3"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        APGD(**options)


def test_the_ratio_of_too_few_logits_is_refused(images: Tensor) -> None:
    three = as_network(Linear(torch.randn(3, 12)))
    APGD(loss="dlr", n_steps=1)(three, images, torch.zeros(5, dtype=torch.long), 0.1)
    with pytest.raises(InputError, match="Linear has 3 classes, and this dlr loss takes 4"):
        APGD(loss="dlr", n_targets=2, n_steps=1)(three, images, torch.zeros(5, dtype=torch.long), 0.1)
