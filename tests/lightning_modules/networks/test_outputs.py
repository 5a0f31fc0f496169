"""Logits, or something that is refused until somebody says what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_modules import (
    FGSM,
    AttributionModule,
    GradCAM,
    InputError,
    Noise,
    RobustnessModule,
    Saliency,
    as_network,
    explain,
    load_network,
)
from lightning_modules.metrics import AverageDrop
from tests.lightning_modules.fragile import batch_of, dim_images
from tests.lightning_modules.networks import strangers
from tests.lightning_modules.networks.strangers import (
    EndsInFunction,
    EndsInSigmoid,
    EndsInSoftmax,
    OneOf,
    Raises,
    ReadsASoftmax,
    Small,
    TakesTwo,
)

SIZE: dict[str, Any] = {"input_size": 16}
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (EndsInSoftmax(), "EndsInSoftmax ends in a softmax.*model.outputs probabilities"),
        (EndsInFunction(), "EndsInFunction ends in a softmax: its output is probabilities"),
        (ReadsASoftmax(), "ReadsASoftmax gives rows that are at least 0 and sum to 1"),
        (
            EndsInSigmoid(),
            "ends in a sigmoid: the probabilities of 4 labels .*Remove the sigmoid.*outputs independent",
        ),
        (EndsInSigmoid(1), "EndsInSigmoid ends in a sigmoid"),
        (nn.Sequential(Small(), nn.Softmax(1), nn.Flatten()), "ends in a softmax"),
        (Small(1), "Small gives one number an image.*set model.outputs binary"),
        (OneOf("dict"), "gives a dict of out, aux. Wrap it"),
        (OneOf("tuple"), "gives a tuple of 2"),
        (OneOf("list"), "gives a list of 1"),
        (OneOf("none"), "gives a NoneType"),
        (OneOf("row"), r"gives \(5,\), one number an image"),
        (OneOf("dense"), r"gives \(5, 6, 8, 8\) for 5 images: logits of each pixel"),
        (OneOf("classes"), r"gives torch.int64 \(5,\): classes without their logits"),
        (OneOf("one for all"), r"gives \(1, 4\) for 5 images"),
        (TakesTwo(), r"TakesTwo fails on an image \(3, 16, 16\): .*missing 1 required positional argument: 'scale'"),
        (Raises("KeyError"), "KeyError: 'pixel_values'"),
        (Raises("AssertionError"), "AssertionError"),
        (Raises("AttributeError"), "no attribute 'tensors'"),
        (Raises("NotImplementedError"), "forward"),
    ],
)
def test_refused(module: nn.Module, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_network(module.eval(), **SIZE)


@pytest.mark.parametrize("kind", [EndsInSoftmax, EndsInFunction, ReadsASoftmax])
def test_probabilities_become_logits(kind: type[Small]) -> None:
    """Up to a constant an image, they are those before the softmax; so predictions and maps of differences are."""
    module, plain = kind().eval(), Small().eval()
    plain.load_state_dict(module.state_dict())
    network, expected = as_network(module, **SIZE, outputs="probabilities"), as_network(plain, **SIZE)
    torch.testing.assert_close(network(IMAGES).softmax(1), expected(IMAGES).softmax(1))
    torch.testing.assert_close(network(IMAGES), expected(IMAGES).log_softmax(1))
    images = IMAGES.clone().requires_grad_()
    expected(images).log_softmax(1)[:, 2].sum().backward()
    torch.testing.assert_close(explain(network, IMAGES, [Saliency()], 2)["Saliency"], images.grad)


def test_one_logit_makes_two_classes() -> None:
    module = Small(1).eval()
    network = as_network(module, **SIZE, outputs="binary", class_names=["no", "yes"])
    probability = torch.sigmoid(module(IMAGES))[:, 0]
    torch.testing.assert_close(network(IMAGES).softmax(1)[:, 1], probability)
    assert network.class_names == ["no", "yes"]
    yes, no = (explain(network, IMAGES, [Saliency()], k)["Saliency"] for k in (1, 0))
    assert yes.abs().max() > 0
    torch.testing.assert_close(yes, -no)


def test_one_probability_makes_two_classes() -> None:
    module = EndsInSigmoid(1).eval()
    network = as_network(module, **SIZE, outputs="probabilities")
    torch.testing.assert_close(network(IMAGES).softmax(1)[:, 1], module(IMAGES)[:, 0])
    assert network.class_names == ["0", "1"]


def test_a_probability_of_zero_has_a_finite_logit() -> None:
    module = EndsInSoftmax().eval()
    nn.init.constant_(module.head.bias, 0)
    module.head.bias.data[0] = 500
    network = as_network(module, **SIZE, outputs="probabilities")
    assert module(IMAGES)[:, 1:].max() == 0
    assert network(IMAGES).isfinite().all()


@pytest.mark.parametrize(
    ("module", "outputs", "message"),
    [
        (Small(), "probabilities", "Small gives numbers from .* to .*: no probabilities"),
        (Small(), "binary", "Small gives 4 numbers an image, and model.outputs binary is of one logit"),
        (EndsInSigmoid(1), "binary", "ends in a sigmoid, so it gives no logit: set model.outputs probabilities"),
        (Small(1), "logits", "Small gives one number an image. Set model.outputs binary"),
        (Small(), "softmax", "should be one of logits, probabilities, binary, independent, got 'softmax'"),
        (
            EndsInSigmoid(),
            "probabilities",
            "4 labels of their own, whose logarithms are no logits.*outputs independent",
        ),
        (EndsInSigmoid(), "independent", "ends in a sigmoid, .*Remove that end"),
        (Small(1), "independent", "of several labels. Set model.outputs binary"),
    ],
)
def test_what_is_said_has_to_fit(module: nn.Module, outputs: Any, message: str) -> None:
    nn.init.constant_(module.head.bias, -3)
    with pytest.raises(InputError, match=message):
        as_network(module.eval(), **SIZE, outputs=outputs)


def test_logits_that_look_like_probabilities() -> None:
    assert as_network(EndsInSoftmax().eval(), **SIZE, outputs="logits").outputs == "logits"


def test_a_segmentation_network_is_refused() -> None:
    path = "torchvision.models.segmentation.lraspp_mobilenet_v3_large"
    with pytest.raises(InputError, match="gives a OrderedDict of out"):
        load_network({"class_path": path, "init_args": {"weights_backbone": None}}, "random", input_size=64)


def test_binary_in_an_attack() -> None:
    """A class is found and an attack can succeed: with one logit, each image was of class 0 with 100 %."""
    said = {"mean": (0.5,) * 3, "std": (0.5,) * 3, **SIZE}
    one = {"class_path": f"{strangers.__name__}.Small", "init_args": {"n_outputs": 1}}
    module = RobustnessModule("random", network=one, methods=[GradCAM("body")], attack=FGSM(), outputs="binary", **said)
    assert len(module.network.class_names) == 2


def test_independent_labels() -> None:
    """Logits are explained as they are, probabilities are sigmoids, and an attack has nowhere to lead."""
    module = Small().eval()
    network, plain = as_network(module, **SIZE, outputs="independent"), as_network(module, **SIZE)
    maps = explain(network, IMAGES, [Saliency()], 2)
    assert torch.equal(maps["Saliency"], explain(plain, IMAGES, [Saliency()], 2)["Saliency"])
    torch.testing.assert_close(maps.forward_pass.probabilities, module(IMAGES).sigmoid())
    for attack in (FGSM(), Noise()):
        with pytest.raises(InputError, match="Small has independent labels"):
            attack(network, IMAGES, torch.zeros(len(IMAGES), dtype=torch.long), 0.1)
    options: Any = {"network": f"{Small.__module__}.Small", "weights": "random", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    options |= {"outputs": "independent", "input_size": 32}
    with pytest.raises(InputError, match="Small has independent labels"):
        RobustnessModule(**options, methods=[])
    evaluation = AttributionModule(**options, methods=[Saliency()], metrics=[AverageDrop()])
    batch: Any = batch_of(dim_images(2)) | {"original": [None] * 2}
    rows = evaluation.test_step(batch, 0)["rows"]
    sigmoids = evaluation.network(batch["image"]).sigmoid()
    assert [row["probability"] for row in rows] == pytest.approx(sigmoids.amax(1).tolist())
