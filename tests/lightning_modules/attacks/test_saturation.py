"""Networks so sure that the gradient vanishes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules import FGSM, PGD, Network, as_network
from tests.lightning_modules.attacks.linear import Linear, by_hand, differing_signs
from tests.references import full_pass


class TestSaturation:
    """A network so sure that float32 rounds the probability of its class to 1."""

    @pytest.fixture
    def target(self, linear: Network[Linear], images: Tensor) -> Tensor:
        return linear(images).argmax(1)

    def sure(self, linear: Network[Linear], images: Tensor, margin: float) -> Network[Linear]:
        """The linear model scaled so that its smallest margin is ``margin``."""
        margins = -linear(images).topk(2).values.diff(dim=1)
        return as_network(Linear(linear.module.weight.detach() * margin / float(margins.min().detach())))

    @pytest.mark.parametrize("norm", ["inf", 2, 1])
    def test_vanished_gradient_is_counted_and_remedied(
        self, linear: Network[Linear], images: Tensor, target: Tensor, norm: str | int
    ) -> None:
        model = self.sure(linear, images, 120)
        eps = {"inf": 0.5, 2: 2.0, 1: 3.0}[norm]
        plain = FGSM(norm).sweep(full_pass(model, images), target, [eps])
        assert plain.vanished.all()
        assert torch.equal(plain.adversarial[0], images)
        remedied = FGSM(norm, unsaturate=True).sweep(full_pass(model, images), target, [eps])
        assert not remedied.vanished.any()
        for image, label, adversarial in zip(images.numpy(), target.tolist(), remedied.adversarial[0].numpy()):
            expected = (image.reshape(-1) + by_hand(model, image, label, norm, eps)).clip(0, 1)
            np.testing.assert_allclose(adversarial.reshape(-1), expected, rtol=0, atol=1e-5)
        if norm == "inf":
            assert (model(remedied.adversarial[0]).argmax(1) != target).all()

    def test_pgd_is_remedied_too(self, linear: Network[Linear], images: Tensor, target: Tensor) -> None:
        model = self.sure(linear, images, 120)
        forward_pass = full_pass(model, images)
        assert PGD().sweep(forward_pass, target, [0.1, 0.5]).vanished.all()
        sweep = PGD(unsaturate=True).sweep(forward_pass, target, [0.1, 0.5])
        assert not sweep.vanished.any()
        assert (model(sweep.adversarial[1]).argmax(1) != target).all()

    def test_only_the_sure_image_vanishes(self, linear: Network[Linear], images: Tensor, target: Tensor) -> None:
        model = self.sure(linear, images[:1], 120)
        # Of a black image all logits are 0.
        images = torch.cat([images[:1], torch.zeros_like(images[:1])])
        sweep = FGSM().sweep(full_pass(model, images), target[:2], [0.25])
        assert sweep.vanished.tolist() == [True, False]
        assert (sweep.adversarial[0][1] != images[1]).any()

    def test_half_a_gradient_is_remedied(self, shapes_network: Network, big_images: Tensor) -> None:
        """Before all of the gradient is zero, its part that lowers the class's own logit is: many signs are wrong."""
        network = copy.deepcopy(shapes_network)
        images = torch.cat([big_images, big_images.flip(3)])
        largest = float(-network(images).topk(2).values.diff(dim=1).min())
        for parameter in network.layers["classifier.6"].parameters():
            # float64 resolves margins up to 36.
            parameter.data *= 34 / largest
        probabilities = network(images).softmax(1)
        sure = probabilities.amax(1) == 1
        assert sure.sum() >= 2
        images, target = images[sure], probabilities[sure].argmax(1)
        exact = FGSM()(copy.deepcopy(network).double(), images.double(), target, 4 / 255).float()
        plain, remedied = (
            differing_signs(FGSM(unsaturate=u)(network, images, target, 4 / 255), exact, images) for u in (False, True)
        )
        assert plain > 0.1
        assert remedied < 1e-3
