from __future__ import annotations

import copy
import math

import foolbox
import numpy as np
import pytest
import torch
import torchattacks
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules import FGSM, PGD, Attack, InputError, Network, as_network
from lightning_modules.attacks.base import check_budget
from tests.references import full_pass

SWEEP = [1 / 255, 2 / 255, 4 / 255, 8 / 255]


class Linear(nn.Module):
    """Logits that are linear in the pixels, weights ``(n_classes, 12)`` for images ``(3, 2, 2)``."""

    input_size = 2

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


@pytest.fixture
def linear() -> Network[Linear]:
    return as_network(Linear(torch.randn(4, 12)))


@pytest.fixture
def images() -> Tensor:
    """Images of the linear model, far enough from 0 and 1 that nothing is clipped."""
    return 0.3 + 0.4 * torch.rand(5, 3, 2, 2)


@pytest.fixture(scope="module")
def big_images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(8, 3, 14, 14, generator=generator)
    return F.interpolate(noise, (112, 112), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def labels(shapes_network: Network, big_images: Tensor) -> Tensor:
    """The predicted classes: an attack that leads away from them has something to do."""
    return shapes_network(big_images).argmax(1)


def by_hand(linear: Network[Linear], image: np.ndarray, label: int, norm: str | int, eps: float) -> np.ndarray:
    """The step away from ``label`` of one image, ``(12,)``.

    The cross-entropy's gradient is a positive number times the mean of the other classes' weights under their own
    softmax, minus the label's weights.
    """
    weight = linear.module.weight.detach().double().numpy()
    others = [k for k in range(len(weight)) if k != label]
    logits = weight[others] @ image.reshape(-1)
    powers = np.exp(logits - logits.max())
    gradient = powers / powers.sum() @ weight[others] - weight[label]
    if norm == "inf":
        return eps * np.sign(gradient)
    if norm == 2:
        return eps * gradient / math.sqrt(sum(g * g for g in gradient))
    k = np.argmax(abs(gradient))
    step = np.zeros(12)
    step[k] = eps * np.sign(gradient[k])
    return step


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


class Gradients(nn.Module):
    """A model run in channels_last, which keeps its pixels to tell how long their gradients were."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        self.pixels = x
        return self.model(x.contiguous(memory_format=torch.channels_last))

    def length(self) -> Tensor:
        return self.pixels.grad.flatten(1).norm(dim=1)


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
    images = F.interpolate(big_images[:2], (224, 224), mode="bilinear")
    target = random_vgg16(images).argmax(1)
    sweep = FGSM().sweep(full_pass(random_vgg16, images), target, SWEEP[::3])
    model = foolbox.PyTorchModel(random_vgg16, bounds=(0, 1), device="cpu")
    _, theirs, _ = foolbox.attacks.FGSM()(model, images, target, epsilons=SWEEP[::3])
    for eps, ours, reference in zip(SWEEP[::3], sweep.adversarial, theirs):
        assert differing_signs(ours, reference, images) < 1e-4
        assert differing_signs(ours, torchattacks.FGSM(random_vgg16, eps)(images, target), images) < 1e-4


def differing_signs(ours: Tensor, reference: Tensor, images: Tensor) -> float:
    assert (ours != images).float().mean() > 0.9
    return float(((ours - images).sign() != (reference - images).sign()).float().mean())


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


@pytest.mark.parametrize("attack", [FGSM(), FGSM(2), FGSM(1), PGD(n_steps=2), PGD(2, n_steps=2)], ids=repr)
def test_bounds_hold_and_eps_0_is_the_image(
    shapes_network: Network, big_images: Tensor, labels: Tensor, attack: Attack
) -> None:
    assert torch.equal(attack(shapes_network, big_images, labels, 0.0), big_images)
    for eps in (1 / 255, 0.3, 1.0):
        adversarial = attack(shapes_network, big_images, labels, eps)
        assert not adversarial.requires_grad
        linf, l2 = check_budget(attack, big_images, adversarial, eps)
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
        (1.5, 4 / 255, r"Cheat left its bounds: with eps 4/255 it moved an image by 0\.0235"),
        (1.001, 0.1, "left its bounds"),
        (1.0, 0.75, r"to pixels in \[1\.25, 1\.25\]"),
        (math.nan, 0.1, "by nan"),
    ):
        attack = Cheat(factor)
        with pytest.raises(InputError, match=message):
            check_budget(attack, images, attack(nn.Identity(), images, target, eps), eps)
    check_budget(Cheat(1.0), images, Cheat(1.0)(nn.Identity(), images, target, 1 / 255), 1 / 255)
    with pytest.raises(InputError, match=r"gave \(1, 3, 4, 4\) of images \(2, 3, 4, 4\)"):
        check_budget(Cheat(), images, images[:1], 0.1)


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

    def test_half_a_gradient_is_remedied(self, shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
        """Before all of the gradient is zero, its part that lowers the class's own logit is: many signs are wrong."""
        network = copy.deepcopy(shapes_network)
        largest = float(-network(big_images).topk(2).values.diff(dim=1).min())
        for parameter in network.layers["classifier.6"].parameters():
            # float64 resolves margins up to 36.
            parameter.data *= 34 / largest
        sure = network(big_images).softmax(1).amax(1) == 1
        assert sure.sum() >= 2
        images, target = big_images[sure], labels[sure]
        exact = FGSM()(copy.deepcopy(network).double(), images.double(), target, 4 / 255).float()
        plain, remedied = (
            differing_signs(FGSM(unsaturate=u)(network, images, target, 4 / 255), exact, images) for u in (False, True)
        )
        assert plain > 0.1
        assert remedied < 1e-3


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


def test_images_alone_and_together(shapes_network: Network, big_images: Tensor, labels: Tensor) -> None:
    together = FGSM(2)(shapes_network, big_images, labels, 0.5)
    for i in (0, 5):
        alone = FGSM(2)(shapes_network, big_images[i : i + 1], labels[i : i + 1], 0.5)
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


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
        with pytest.raises(InputError, match=r"pixels in \[0, 1\], got \[-2, 3\].*normalized"):
            attack(linear, torch.linspace(-2, 3, 12).view(1, 3, 2, 2), torch.tensor([0]), 0.1)
