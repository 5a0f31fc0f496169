"""cleverhans' other attacks: equal to its own functions, called image by image."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from cleverhans.torch.attacks.noise import noise
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from cleverhans.torch.attacks.sparse_l1_descent import sparse_l1_descent
from cleverhans.torch.attacks.spsa import spsa
from torch import Tensor
from torch.nn import functional as F

from lightning_modules import PGD, SPSA, ForwardPass, InputError, Network, Noise, SparseL1Descent, as_network
from lightning_modules.attacks.base import Attack, check_budget
from lightning_modules.networks.inputs import trusted
from lightning_modules.random_numbers import seed_from
from tests.lightning_modules.attacks.linear import Gradients, Linear
from tests.references import numbers_of

SEEDED = [Noise(), SPSA(n_steps=2, n_samples=2), SPSA(2, n_steps=2, n_samples=2), PGD(n_steps=2, random_start=True)]
KEYS = ["a.png", "b.png", "c.png"]


@pytest.fixture(scope="module")
def plain(shapes_network: Network) -> Gradients:
    return Gradients(copy.deepcopy(shapes_network))


def swept(attack: Attack, network: Network, images: Tensor, target: Tensor, keys: list[str], eps: float) -> Tensor:
    seen = ForwardPass(network, images, keys=keys, needs=attack.needs(network))
    return attack.sweep(seen, target, [eps]).adversarial[0]


@contextmanager
def drawing(seed: int, image: Tensor) -> Iterator[None]:
    """What cleverhans draws are the numbers of the seed, in their order."""
    numbers = iter(numbers_of(seed, "uniform", (30, *image.shape[1:])))

    def next_like(images: Tensor) -> Tensor:
        return torch.stack([next(numbers) for _ in images])

    def uniform_(images: Tensor, low: float, high: float) -> Tensor:
        return images.copy_(low + (high - low) * next_like(images))

    with mock.patch.object(torch, "rand_like", next_like), mock.patch.object(Tensor, "uniform_", uniform_):
        yield


class TestEqualToCleverhans:
    """Each image from the seed of its key, as if torch drew those numbers."""

    def theirs(self, attack: Any, of_image: Any, images: Tensor, labels: Tensor) -> Tensor:
        found = []
        for key, image, label in zip(KEYS, images.split(1), labels.split(1)):
            with drawing(seed_from(attack.seed, key), image):
                found.append(of_image(image, label).detach())
        return torch.cat(found)

    def test_noise(self, shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
        images, attack = big_images[:3], Noise(seed=5)
        theirs = self.theirs(attack, lambda x, y: noise(x, 0.1, clip_min=0, clip_max=1), images, labels)
        torch.testing.assert_close(swept(attack, shapes_network, images, labels[:3], KEYS, 0.1), theirs, rtol=0, atol=0)

    @pytest.mark.slow
    @pytest.mark.parametrize(("norm", "order", "eps"), [("inf", np.inf, 0.05), (2, 2, 3.0)])
    @pytest.mark.parametrize("targeted", [False, True])
    def test_spsa(
        self,
        shapes_network: Network,
        big_images: Tensor,
        labels: Tensor,
        norm: Any,
        order: Any,
        eps: float,
        targeted: bool,
    ) -> None:
        images, attack = big_images[:3], SPSA(norm, targeted, 3, 4, delta=0.02)

        def of_image(x: Tensor, y: Tensor) -> Tensor:
            options: dict[str, Any] = {"clip_min": 0, "clip_max": 1, "delta": 0.02, "spsa_samples": 4}
            model = lambda z: shapes_network(z.contiguous(memory_format=torch.channels_last))  # noqa: E731
            return spsa(model, x, eps, 3, order, y=y, targeted=targeted, **options)

        with trusted():  # theirs leave [0, 1] on their way
            theirs = self.theirs(attack, of_image, images, labels)
        torch.testing.assert_close(
            swept(attack, shapes_network, images, labels[:3], KEYS, eps), theirs, rtol=0, atol=1e-6
        )

    @pytest.mark.parametrize(("norm", "order", "eps"), [("inf", np.inf, 0.05), (2, 2, 3.0)])
    def test_pgd_from_a_random_point(
        self,
        plain: Gradients,
        shapes_network: Network,
        big_images: Tensor,
        labels: Tensor,
        norm: Any,
        order: Any,
        eps: float,
    ) -> None:
        images, attack = big_images[:3], PGD(norm, n_steps=2, random_start=True, seed=1)

        def of_image(x: Tensor, y: Tensor) -> Tensor:
            return projected_gradient_descent(plain, x, eps, eps / 4, 2, order, 0, 1, y=y, sanity_checks=False)

        theirs = self.theirs(attack, of_image, images, labels)
        ours = swept(attack, shapes_network, images, labels[:3], KEYS, eps)
        assert ((ours - theirs).abs() > 1e-5).float().mean() < 1e-2
        assert not torch.allclose(ours, PGD(norm, n_steps=2)(shapes_network, images, labels[:3], eps), atol=1e-3)

    @pytest.mark.parametrize("targeted", [False, True])
    def test_sparse_descent(self, shapes_network: Network, big_images: Tensor, labels: Tensor, targeted: bool) -> None:
        """It fails itself on gradients in channels_last, as our networks give them."""

        def contiguous(pixels: Tensor) -> Tensor:
            pixels = pixels * 1
            pixels.register_hook(lambda gradient: gradient.contiguous())
            return shapes_network(pixels)

        images, target = big_images[:3], labels[:3]
        theirs = sparse_l1_descent(
            contiguous,
            images.clone(),
            40.0,
            10.0,
            5,
            target,
            targeted,
            0,
            1,
            grad_sparsity=98.0,
            sanity_checks=False,
        )
        ours = SparseL1Descent(targeted, 5, 0.25, 98.0)(shapes_network, images, target, 40.0)
        # Where entries are equal up to rounding, either may be among the largest.
        assert ((ours - theirs).abs() > 1e-4).float().mean() < 1e-3
        assert 0.001 < (ours != images).float().mean() < 0.2


class TestBounds:
    @pytest.mark.parametrize("attack", [*SEEDED, SparseL1Descent(n_steps=3)], ids=repr)
    def test_they_hold_and_eps_0_is_the_image(
        self, shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
    ) -> None:
        images, target = big_images[:2], labels[:2]
        assert torch.equal(attack(shapes_network, images, target, 0.0), images)
        for eps in (1 / 255, 0.3, 1.0):
            adversarial = attack(shapes_network, images, target, eps)
            assert not adversarial.requires_grad
            assert not check_budget(attack, images, adversarial, eps).linf.isnan().any()
            assert not torch.equal(adversarial, images)

    @pytest.mark.parametrize("attack", [*SEEDED, SparseL1Descent(n_steps=1)], ids=repr)
    def test_normalized_images_are_refused(self, shapes_network: Network, attack: Attack) -> None:
        with pytest.raises(InputError, match=r"images should be pixels in \[0, 1\]"):
            attack(shapes_network, torch.full((1, 3, 112, 112), -0.5), torch.tensor([0]), 0.1)


class TestSeeds:
    @pytest.mark.parametrize("attack", SEEDED, ids=repr)
    def test_an_image_is_attacked_in_the_same_way_in_any_batch(
        self, shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
    ) -> None:
        images, target = big_images[:3], labels[:3]
        torch.manual_seed(1)
        together = swept(attack, shapes_network, images, target, KEYS, 0.1)
        torch.manual_seed(2)
        state = torch.get_rng_state()
        alone = swept(attack, shapes_network, images[1:2], target[1:2], KEYS[1:2], 0.1)
        assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched
        assert ((together[1:2] - alone).abs() > 1e-5).float().mean() < 1e-3
        other = swept(attack, shapes_network, images[1:2], target[1:2], ["d.png"], 0.1)
        assert ((other - alone).abs() > 1e-3).float().mean() > 0.1

    def test_images_of_one_key_differ_by_their_seed(self, shapes_network: Network) -> None:
        images, target = torch.full((2, 3, 112, 112), 0.5), torch.tensor([0, 0])
        found = [swept(Noise(seed), shapes_network, images, target, ["a", "a"], 0.1) for seed in (0, 1)]
        assert torch.equal(found[0][0], found[0][1])
        assert not torch.equal(found[0][0], found[1][0])
        called = Noise()(shapes_network, images, target, 0.1)
        assert torch.equal(called[0], called[1])  # of equal pixels, as nothing else tells them apart


@pytest.mark.slow
def test_they_lead_where_they_should() -> None:
    network, images = as_network(Linear(torch.randn(3, 12))), torch.full((5, 3, 2, 2), 0.5)
    of = torch.tensor([0, 1, 2, 0, 1])

    def loss(attack: Attack, eps: float) -> Tensor:
        return F.cross_entropy(network(attack(network, images, of, eps)), of, reduction="none")

    for towards, idle, away, eps in (
        (SPSA(targeted=True), Noise(), SPSA(), 0.06),
        (SPSA(2, targeted=True), Noise(), SPSA(2), 0.3),
        (SparseL1Descent(True, sparsity=70), Noise(), SparseL1Descent(sparsity=70), 0.5),
    ):
        assert (loss(towards, eps) < loss(idle, eps / 10)).all()
        assert (loss(idle, eps / 10) < loss(away, eps)).all()


def test_sparse_descent_by_hand() -> None:
    """Three of twelve pixels, the ones of the largest weights, get the budget in equal parts."""
    weight = torch.zeros(2, 12)
    weight[1] = torch.tensor([1.0, -9, 2, 3, 8, -4, 0, 1, 7, 2, 1, 5])
    images = torch.full((1, 3, 2, 2), 0.5)
    attacked = SparseL1Descent(n_steps=1, relative_step=1, sparsity=84)(
        as_network(Linear(weight)), images, torch.tensor([0]), 0.3
    )
    expected = torch.zeros(12)
    expected[[1, 4, 8]] = torch.tensor([-0.1, 0.1, 0.1])
    torch.testing.assert_close((attacked - images).flatten(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1, got 0"),
        ({"n_samples": 0}, "n_samples must be at least 1"),
        ({"delta": 0}, "delta must be above 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"norm": 1}, "norm must be one of inf, 2"),
    ],
)
def test_bad_options_of_spsa(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPSA(**options)


@pytest.mark.parametrize("options", [{"n_steps": 0}, {"relative_step": 0}, {"sparsity": 100}, {"sparsity": 0}])
def test_bad_options_of_sparse_descent(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"{next(iter(options))} must"):
        SparseL1Descent(**options)
