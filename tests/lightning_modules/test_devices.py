"""A step computes where its batch lies: no tensor is made on another device. No GPU is needed to see it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules import (
    FGSM,
    PGD,
    ActivationMaximizationModule,
    Attack,
    AttributionMethod,
    AttributionModule,
    ForwardPass,
    GradCAM,
    Needs,
    Occlusion,
    RobustnessModule,
    SmoothGrad,
    attribution,
    evaluation,
    explain,
    load_vgg16,
    robustness,
)
from lightning_modules.judging import measured_image
from lightning_modules.metrics import AverageDrop
from lightning_modules.networks.inputs import trusted
from lightning_modules.synthesis import Channel, LogitMargin, Objective, maximize, transforms
from tests.lightning_modules.fakes import DEVICES, ReadOnHost, fake_device, raise_read
from tests.lightning_modules.fragile import FRAGILE, dim_images
from tests.lightning_modules.test_waits import METHODS as ALL
from tests.lightning_modules.test_waits import a_batch, metrics

METHODS = [Occlusion(8) if isinstance(method, Occlusion) else method for method in ALL]
"""The same on images of 32 × 32."""

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("device", DEVICES)]


@pytest.fixture(autouse=True)
def _ended_by_the_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends where its rows are read, which a device that is not there cannot do. Nothing else is left out.

    So a step that ends by :class:`ReadOnHost` has made every operation that it makes on the device.
    """
    for module in (attribution, evaluation, robustness):
        monkeypatch.setattr(module, "on_host", raise_read)


def assert_stays_on(device: str, module: Any, batch: dict[str, Any]) -> None:
    """That a test step makes all tensors on the device of its batch, and reads them from there."""
    with fake_device(device) as fake, pytest.raises(ReadOnHost) as read:
        fake.moved(module).test_step(fake.moved(batch), 0)
    assert read.value.devices == {device}


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_a_step_of_attribution(device: str, target: str) -> None:
    """Without LocalizationError, which asks SciPy on the host, and WeightRandomization, which copies the network: of
    tensors that are not there a copy cannot be used. Other methods are seen by ``explain``, below."""
    scores = metrics() if target == "predicted" else [AverageDrop()]  # all else is the same for every target
    module = AttributionModule(methods=[GradCAM()], metrics=scores, target=target, **FRAGILE)
    assert_stays_on(device, module, a_batch())


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(),
        FGSM(1, unsaturate=True),
        FGSM(targeted=True),
        PGD(2, n_steps=2, unsaturate=True),
    ],
    ids=repr,
)
def test_a_step_of_robustness(device: str, attack: Attack) -> None:
    module = RobustnessModule(eps=["1/255", 0.1], attack=attack, methods=[GradCAM(), SmoothGrad(2)], **FRAGILE)
    assert_stays_on(device, module, a_batch())


@pytest.mark.parametrize("objective", [LogitMargin("mean"), Channel("features.4")], ids=repr)
def test_a_step_of_activation_maximization(device: str, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the device does of it. The numbers of the batch, and how far images are shifted, are read on the host, where
    they lie."""

    def are_equal(positions: Tensor, others: Tensor) -> bool:
        assert positions.device.type == others.device.type == "cpu"
        return False

    monkeypatch.setattr(transforms, "_are_equal", are_equal)
    module = ActivationMaximizationModule("shapes", objective, steps=2, image_size=32, n_fresh=2, n_figures=0)
    left: list[Any] = []
    with fake_device(device) as fake:
        fake.moved(module)
        images = maximize(
            module.network,
            objective,
            torch.tensor([1, 2]),
            module.recipes["both"],
            module.size,
            ["a", "b"],
            lambda step: left.append((step.images, step.activation, step.reached)),
        )
        fresh = module.fresh, module.n_fresh
        left += [measured_image(image, module.network, objective, 1, "a", fresh) for image in images]
    assert len(left) == 2 + 2
    assert ReadOnHost(left).devices == {device}


@pytest.mark.parametrize("target", [None, torch.tensor([0, 1])], ids=["predicted", "classes"])
def test_explain(device: str, target: Tensor | None) -> None:
    """Whether pixels and classes can be used is read on the host, and so is not checked here."""
    network, images = load_vgg16("shapes"), dim_images(2)
    with fake_device(device) as fake, trusted():
        network, images = fake.moved(network), fake.moved(images)
        maps = explain(network, images, METHODS, fake.moved(target), keys=["a", "b"])
        assert {name: of.device.type for name, of in maps.items()} == dict.fromkeys(map(repr, METHODS), device)
        assert all(of.shape[::2] == (2, 32) for of in maps.values())


class OnTheWrongDevice(AttributionMethod):
    """Makes a tensor without saying where."""

    def needs(self, network: Any) -> Needs:
        return Needs(input_gradient=True)

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        gradient = forward_pass.input_gradient()
        return gradient * torch.ones(gradient.shape[2:])


class Curious(AttributionMethod):
    """Wants to know a value in the middle of the step."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        images = forward_pass.images.detach()
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (OnTheWrongDevice(), "(?i)same device|two different devices"),
        (Curious(), "(?i)data-dependent|aten._local_scalar"),
    ],
    ids=["wrong device", "value"],
)
def test_what_is_wrong_is_found(device: str, method: AttributionMethod, message: str) -> None:
    module, batch = AttributionModule(methods=[method], metrics=[], **FRAGILE), a_batch()
    with fake_device(device) as fake, pytest.raises(Exception, match=message) as error:
        fake.moved(module).test_step(fake.moved(batch), 0)
    assert not isinstance(error.value, ReadOnHost)
