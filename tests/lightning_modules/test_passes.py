"""What a run says that it costs is what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules import (
    APGD,
    DDN,
    FGSM,
    PGD,
    RISE,
    SPSA,
    Attack,
    AttributionMethod,
    AttributionModule,
    EvaluationModule,
    GradCAM,
    IntegratedGradients,
    Occlusion,
    RobustnessModule,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    SparseL1Descent,
    VarGrad,
)
from lightning_modules.metrics import (
    ROAD,
    AttributionMetric,
    AverageDrop,
    Infidelity,
    InsertionDeletion,
    SensitivityMax,
    Sparseness,
    WeightRandomization,
)
from tests.lightning_modules.fragile import FRAGILE, batch_of, dim_images


def n_shown(module: EvaluationModule, n_images: int) -> int:
    """How many images the network is shown while it evaluates a batch."""
    n = 0

    def count(_: Any, images: tuple[torch.Tensor, ...]) -> None:
        nonlocal n
        n += len(images[0])

    handle = module.network.original.register_forward_pre_hook(count)
    batch = batch_of(dim_images(n_images))
    module.evaluate(batch | {"original": [None] * n_images})  # type: ignore[arg-type, operator]
    handle.remove()
    return n


@pytest.mark.parametrize(
    "methods",
    [
        [GradCAM(), Saliency(), RISE(5)],
        [ScoreCAM("body"), Occlusion(8, 8), SmoothGrad(3), VarGrad(2, method=GradCAM())],
        [IntegratedGradients(4), SmoothGrad(2, method=ScoreCAM("body"))],
    ],
    ids=repr,
)
def test_methods(methods: list[AttributionMethod]) -> None:
    module = AttributionModule(methods=methods, metrics=[], target="predicted", **FRAGILE)
    assert n_shown(module, 3) == 3 * (1 + sum(module.passes().values()))


@pytest.mark.parametrize(
    "metric",
    [
        AverageDrop(),
        InsertionDeletion(),
        InsertionDeletion(step=100),
        ROAD([30, 60]),
        Infidelity(3),
        SensitivityMax(2),
        WeightRandomization(n_seeds=2),
        WeightRandomization(["head"]),
        Sparseness(),
    ],
    ids=repr,
)
def test_metrics(metric: AttributionMetric) -> None:
    module = AttributionModule(methods=[GradCAM(), SmoothGrad(3)], metrics=[metric], target="predicted", **FRAGILE)
    assert n_shown(module, 2) == 2 * (1 + sum(module.passes().values()))


@pytest.mark.parametrize(
    "attack",
    [
        *(FGSM(), PGD(n_steps=3), SPSA(n_steps=2, n_samples=3), SparseL1Descent(n_steps=2)),
        *(APGD(n_steps=3), APGD(targeted=True, n_steps=2), DDN(n_steps=3)),
    ],
    ids=repr,
)
def test_attacks(attack: Attack) -> None:
    options: dict[str, Any] = {"eps": [0.01, 0.02], "methods": [GradCAM(), SmoothGrad(2)], "rounded": True, **FRAGILE}
    options["metrics"] = [AverageDrop()]
    module = RobustnessModule(attack=attack, **options)
    assert n_shown(module, 2) == 2 * (1 + sum(module.passes().values()))
