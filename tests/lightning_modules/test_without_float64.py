"""On Apple's GPU, which has no float64, each step, method and metric gives what it gives elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_modules import (
    FGSM,
    PGD,
    SPSA,
    ActivationMaximizationModule,
    Attack,
    AttributionMethod,
    AttributionModule,
    ForwardPass,
    GradCAM,
    Noise,
    RobustnessModule,
    Saliency,
    SparseL1Descent,
    as_network,
    load_vgg16,
)
from lightning_modules.exemplars import _values
from lightning_modules.host import on_host
from lightning_modules.judging import measured_image
from lightning_modules.metrics import LocalizationError, WeightRandomization
from lightning_modules.synthesis import LogitMargin, maximize
from tests.lightning_modules.fragile import FRAGILE, dim_images
from tests.lightning_modules.networks.strangers import Small
from tests.lightning_modules.test_waits import METHODS, a_batch, metrics
from tests.lightning_modules.waits import put_on_device
from tests.lightning_modules.without_float64 import without_float64

pytestmark = pytest.mark.slow


def assert_same_rows(module: Any, *, is_strict: bool = True) -> None:
    """That a test step without float64 gives the rows of one with it, to the bit."""
    batch = a_batch(2)
    expected = module.test_step(batch, 0)["rows"]
    for network in (module, *module.helpers.values()):
        put_on_device(network)
    moved = {name: value.clone() if isinstance(value, Tensor) else value for name, value in batch.items()}
    with without_float64(is_strict):
        found = module.test_step(put_on_device(moved), 0)["rows"]
    assert repr(found) == repr(expected)


def test_a_step_of_attribution() -> None:
    assert_same_rows(AttributionModule("shapes", methods=METHODS, metrics=[], save_maps=True))
    assert_same_rows(AttributionModule("shapes", [GradCAM()], [*metrics(), LocalizationError()]))


def test_a_step_that_copies_the_network() -> None:
    assert_same_rows(AttributionModule("shapes", [Saliency()], [WeightRandomization()]), is_strict=False)


@pytest.mark.parametrize(
    "attack",
    [
        *(FGSM(), FGSM(2), FGSM(1, unsaturate=True), FGSM(targeted=True), PGD(2, n_steps=2)),
        *(PGD(n_steps=2, random_start=True), Noise(), SparseL1Descent(n_steps=2), SPSA(n_steps=1, n_samples=2)),
    ],
    ids=repr,
)
def test_a_step_of_robustness(attack: Attack) -> None:
    options: dict[str, Any] = {"eps": ["1/255", 0.1], "attack": attack, "methods": [GradCAM(), Saliency()], **FRAGILE}
    assert_same_rows(RobustnessModule(**options, victims=[{**FRAGILE, "name": "other"}], save_adversarial=True))


def test_images_that_are_made() -> None:
    module = ActivationMaximizationModule("shapes", LogitMargin(), steps=2, image_size=32, n_fresh=2, n_figures=0)

    def made() -> Any:
        images = maximize(module.network, LogitMargin(), torch.tensor([1]), module.recipes["both"], module.size, ["a"])
        return on_host(measured_image(images[0], module.network, LogitMargin(), 1, "a", (module.fresh, 2)))

    expected = made()
    put_on_device(module)
    with without_float64():
        found = made()
    assert repr(found) == repr(expected)
    with without_float64():
        values = _values(module.network, {None: (LogitMargin(), [1])}, a_batch())
    assert values.dtype == torch.float64


def test_a_module_that_lies_there_becomes_a_network() -> None:
    module = Small().eval()
    expected = as_network(module, input_size=32)
    with without_float64():
        network = as_network(put_on_device(module), input_size=32)
    assert network.facts == expected.facts


class Doubles(AttributionMethod):
    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.images.detach().double()


class Elsewhere(AttributionMethod):
    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        return forward_pass.images.detach() * forward_pass.images.detach().cpu()


@pytest.mark.parametrize(("method", "message"), [(Doubles(), "support float64"), (Elsewhere(), "same device")])
def test_what_is_wrong_is_found(method: AttributionMethod, message: str) -> None:
    forward_pass = ForwardPass(put_on_device(load_vgg16("shapes")), put_on_device(dim_images(1)), 0)
    put_on_device(forward_pass.images)
    with without_float64(), pytest.raises((TypeError, RuntimeError), match=message):
        method(forward_pass)
