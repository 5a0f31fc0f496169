"""A step waits for the device once: nothing reads a tensor's value on the host before the rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lightning_modules import (
    APGD,
    FGSM,
    PGD,
    RISE,
    ActivationMaximizationModule,
    Attack,
    AttributionMethod,
    AttributionModule,
    ForwardPass,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    GuidedGradCAM,
    HiResCAM,
    InputError,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Needs,
    Noise,
    Occlusion,
    RobustnessModule,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    SparseL1Descent,
    VarGrad,
    XGradCAM,
    explain,
    load_network,
    load_vgg16,
)
from lightning_modules.host import on_host
from lightning_modules.metrics import (
    ROAD,
    AttributionMetric,
    AverageDrop,
    ClassDiscrimination,
    EnergyInBox,
    Infidelity,
    InsertionDeletion,
    PointingGame,
    SensitivityMax,
    Sparseness,
)
from lightning_modules.networks.inputs import trusted
from lightning_modules.synthesis import Channel, LogitMargin, Objective
from tests.lightning_modules.fragile import FRAGILE, batch_of, dim_images
from tests.lightning_modules.waits import put_on_device, waits_counted

pytestmark = pytest.mark.slow

METHODS = [
    *(GradCAM(), GuidedBackprop(), GuidedGradCAM(), Saliency(), SmoothGrad(3, max_batch=4)),
    *(GradCAMPlusPlus(), XGradCAM(), HiResCAM(), LayerCAM(["features.22", "features.29"]), InputXGradient()),
    *(VarGrad(3), IntegratedGradients(3), IntegratedGradients(2, "blur"), IntegratedGradients(2, "mean")),
    *(IntegratedGradients(2, "noise"), ScoreCAM("features.1"), Occlusion(16), RISE(3)),
]


def a_batch(n: int = 3, labels: list[int] | None = None) -> dict[str, Any]:
    """A batch without figures."""
    return batch_of(dim_images(n), labels) | {"original": [None] * n}


def metrics() -> list[AttributionMetric]:
    return [
        *(PointingGame(), EnergyInBox(), ClassDiscrimination(), AverageDrop(), InsertionDeletion(step=256)),
        *(Sparseness(), SensitivityMax(n_samples=1), Infidelity(n_samples=2), ROAD([50])),
    ]


def waits_of(module: Any, batch: dict[str, Any]) -> list[str]:
    """The waits of a test step of a module and a batch on the device."""
    put_on_device(module)
    module.test_step(batch, 0)  # the first step may look at what the later ones know
    with waits_counted() as waits:
        module.test_step(put_on_device(batch), 0)
    return waits


def test_misclassified_images_are_waited_for_once_more() -> None:
    module = AttributionModule("shapes", [GradCAM()], [AverageDrop(), PointingGame()])
    images = dim_images(3)
    predictions = module.network(images).argmax(1).tolist()
    for labels, n in ((predictions, 1), ([(k + 1) % 8 for k in predictions], 2)):
        waits = waits_of(module, batch_of(images.clone(), labels) | {"original": [None] * 3})
        assert len(waits) == n, "\n".join(waits)


@pytest.mark.parametrize(
    ("target", "methods", "metrics"),
    [("predicted", METHODS, []), ("label", [GradCAM()], metrics()), ("ring", [GuidedBackprop()], [AverageDrop()])],
    ids=["predicted", "label", "ring"],
)
def test_a_step_of_attribution(target: str, methods: list[AttributionMethod], metrics: list[AttributionMetric]) -> None:
    waits = waits_of(AttributionModule("shapes", methods=methods, metrics=metrics, target=target), a_batch())
    assert len(waits) == 1, "\n".join(waits)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(),
        FGSM(2),
        FGSM(1, unsaturate=True),
        FGSM(targeted=True),
        PGD(n_steps=2),
        PGD(2, n_steps=2, unsaturate=True),
        PGD(n_steps=2, random_start=True),
        Noise(),
        SparseL1Descent(n_steps=2),
        APGD(loss="dlr", n_steps=5),
        APGD(2, targeted=True, n_steps=5),
    ],
    ids=repr,
)
def test_a_step_of_robustness(attack: Attack) -> None:
    module = RobustnessModule(eps=["1/255", 0.1], attack=attack, methods=[GradCAM(), SmoothGrad(2)], **FRAGILE)
    waits = waits_of(module, a_batch())
    assert len(waits) == 1, "\n".join(waits)


def test_what_figures_show_is_read_once_more() -> None:
    """Of all images of a batch; under attack once for each, since which budget is shown follows from the rows."""
    batch = batch_of(dim_images(3))
    assert len(waits_of(AttributionModule("shapes", [GradCAM(), GuidedBackprop()], [], "predicted"), batch)) == 2
    assert len(waits_of(RobustnessModule("shapes", ["1/255", 0.1]), batch)) == 1 + 3


@pytest.mark.parametrize("objective", [LogitMargin(), LogitMargin("mean"), Channel("features.4")], ids=repr)
def test_the_images_of_a_pass_are_read_once(objective: Objective) -> None:
    module = ActivationMaximizationModule(
        "shapes", objective, steps=3, image_size=32, images_per_pass=2, n_fresh=2, n_figures=0
    )
    module.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    put_on_device(module)
    units = {"target": torch.tensor([1, 2]), "seed": torch.tensor([0, 1]), "index": torch.arange(2)}
    batch: Any = {**units, "layer": [objective.layer] * 2, "name": ["a", "b"], "path": ["a.png", "b.png"]}
    with waits_counted() as waits:
        outputs = module.test_step(batch, 0)
    assert [row["status"] for row in outputs["rows"]] == ["ok", "ok"]
    assert len(waits) == 1, "\n".join(waits)


@pytest.mark.parametrize(
    ("target", "n"), [(None, 2), (1, 2), (torch.tensor([0, 1]), 3)], ids=["predicted", "a class", "classes"]
)
def test_explain(target: Tensor | int | None, n: int) -> None:
    """It looks once whether images are pixels, whether there are such classes, and whether maps are black."""
    network, images = put_on_device(load_vgg16("shapes")), put_on_device(dim_images(2))
    with waits_counted() as waits:
        explain(network, images, METHODS, put_on_device(target), keys=["a", "b"])
    waits = [wait for wait in waits if "signed(forward_pass)" not in wait]  # why one is black
    assert len(waits) == n, "\n".join(waits)


class Peeking(AttributionMethod):
    """Waits, in each of the ways in which one can."""

    def __call__(self, forward_pass: ForwardPass) -> Tensor:
        gradient = forward_pass.input_gradient()
        flat = gradient.flatten()
        bool(flat[0] > 0), int(flat[0]), flat.sum().item()
        flat.tolist(), flat.numpy(), flat.cpu(), flat.to("cpu")
        flat[flat > 0], flat.nonzero(), torch.equal(flat, flat), flat.unique()
        torch.allclose(flat, flat), flat.long().abs().repeat_interleave(flat.long().abs())
        flat[flat > 0] = flat[flat > 0]
        return gradient


def test_each_wait_is_counted_and_says_where_it_is() -> None:
    module = AttributionModule(methods=[Peeking()], metrics=[], target="predicted", **FRAGILE)
    waits = waits_of(module, a_batch())
    assert len(waits) == 1 + 15
    assert all("map_and_grid(method, explanation.forward_pass)" in wait for wait in waits[:-1])


def test_what_is_known_to_the_host_is_no_wait() -> None:
    with waits_counted() as waits:
        float(torch.rand(3).sum())
        put_on_device(torch.rand(3)).add(1)
    assert not waits


@pytest.mark.parametrize(("target", "labels"), [("predicted", [0, 8]), ("label", [8, 0])])
def test_a_label_that_is_no_class_is_refused_all_the_same(target: str, labels: list[int]) -> None:
    with pytest.raises(InputError, match="There is a label 8: the network has classes 0 to 2"):
        AttributionModule(methods=[GradCAM()], target=target, **FRAGILE).test_step(a_batch(2, labels), 0)


def test_an_unlabelled_image_is_refused_all_the_same() -> None:
    with pytest.raises(InputError, match=r"model\.target is label, but some images have none"):
        AttributionModule(methods=[GradCAM()], target="label", **FRAGILE).test_step(a_batch(2, [0, -1]), 0)


@pytest.mark.parametrize("target", ["predicted", "label"])
def test_a_label_that_is_no_class_is_not_attacked(target: str) -> None:
    with pytest.raises(InputError, match="There is a label 8: the network has classes 0 to 2"):
        RobustnessModule(target=target, **FRAGILE).test_step(a_batch(2, [0, 8]), 0)
    with pytest.raises(InputError, match=r"flat folder.*or attack the predicted class"):
        RobustnessModule(**FRAGILE).test_step(a_batch(2, [0, -1]), 0)


@pytest.mark.parametrize("attack", [FGSM(), FGSM(2), PGD(n_steps=2)], ids=repr)
def test_normalized_images_are_not_attacked(attack: Attack) -> None:
    batch = a_batch(2)
    batch["image"][1, 0, 0, 0] = -0.5
    with pytest.raises(InputError, match=r"number 1 \(of 2\) reach from -0\.5 to 0\."):
        RobustnessModule(eps=["4/255"], attack=attack, **FRAGILE).test_step(batch, 0)
    with trusted():
        seen = ForwardPass(load_network(**FRAGILE), batch["image"], needs=Needs(loss_gradient=True))
    (adversarial,) = attack.sweep(seen, batch["label"], [0.1]).adversarial
    assert adversarial[0].isfinite().all()
    assert adversarial[1].isnan().all()


@pytest.mark.parametrize("target", [-1, 8, torch.tensor([0, 8]), torch.tensor([-1, 0])], ids=str)
def test_a_target_that_is_no_class_is_refused(target: Any) -> None:
    network = load_network(**FRAGILE)
    with pytest.raises(InputError, match=r"target must lie in \[0, 3\), got"):
        explain(network, dim_images(2), [GradCAM()], target)


def test_what_is_read_at_once_is_read_bit_by_bit() -> None:
    """Of any dtype and shape, also where what is before it ends at an odd byte."""
    tensors = [
        torch.tensor([True, False, True]),
        torch.tensor([2**53 + 1, -1]),
        torch.tensor(torch.pi, dtype=torch.float64),
        torch.empty(0, 4),
        torch.rand(2, 3).T.bfloat16(),
        torch.tensor([[float("nan"), -0.0]]),
    ]
    read, rest = on_host((tensors, {"words": ["a"], "none": None}))
    assert rest == {"words": ["a"], "none": None}
    for found, of in zip(read, tensors, strict=True):
        assert (found.dtype, found.shape) == (of.dtype, of.shape)
        assert (
            found.numpy(force=True).tobytes() == of.contiguous().numpy().tobytes()
            if of.dtype != torch.bfloat16
            else torch.equal(found, of)
        )
