"""What all scores have to hold that draw noise and make passes of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules import GradCAM, GuidedBackprop, Saliency, SmoothGrad, explain
from lightning_modules.metrics import ROAD, AttributionMetric, Infidelity, SensitivityMax
from lightning_modules.text import NamedByOptions
from tests.lightning_modules.metrics.small import KEYS, small_network, small_pass

BATCH: dict = {}
METRICS: dict[type[AttributionMetric], dict[str, Any]] = {
    SensitivityMax: {"n_samples": 3},
    Infidelity: {"n_samples": 5},
    ROAD: {"percentiles": (20, 70)},
}


@pytest.fixture(params=METRICS, ids=lambda of: of.__name__)
def kind(request: pytest.FixtureRequest) -> type[AttributionMetric]:
    return request.param


def metric(kind: type[AttributionMetric], **options: int) -> Any:
    return kind(**METRICS[kind], **options)  # type: ignore[call-arg]


def test_the_split_does_not_matter(kind: type[AttributionMetric]) -> None:
    together = small_pass()
    expected = metric(kind).score(Saliency()(together), together, BATCH, Saliency())
    for most in (1, 2, 3, 100):
        found = metric(kind, max_batch=most).score(Saliency()(together), small_pass(), BATCH, Saliency())
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    for k in range(2):
        images, target = together.images[k : k + 1].detach(), together.target[k : k + 1]
        maps = explain(together.network, images, [Saliency()], target, keys=KEYS[k : k + 1])
        found = metric(kind).score(maps["Saliency"], maps.forward_pass, BATCH, Saliency())
        alone = {name: of[k : k + 1] for name, of in expected.items()}
        torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-12)


def test_seed_and_key_decide(kind: type[AttributionMetric]) -> None:
    seen = small_pass()
    first, other = (metric(kind, seed=seed).score(Saliency()(seen), seen, BATCH, Saliency()) for seed in (0, 1))
    assert (first[kind.columns[0]] != other[kind.columns[0]]).all()


@pytest.mark.parametrize("value", [0.0, 2.0, torch.nan, torch.inf])
def test_maps_that_show_nothing(kind: type[AttributionMetric], value: float) -> None:
    seen = small_pass()
    maps = Saliency()(seen).clone()
    maps[1] = value
    for name, score in metric(kind).score(maps, seen, BATCH, Saliency()).items():
        assert score.isnan().tolist() == [False, True], name


def test_under_inference_mode_and_autocast(kind: type[AttributionMetric]) -> None:
    """As in a test loop: numbers for every method, about those of full precision."""
    network, images = small_network(torch.float32), small_pass(torch.float32).images.detach()
    methods = [GradCAM(), GuidedBackprop(), SmoothGrad(2)]

    def scores() -> dict[str, dict[str, torch.Tensor]]:
        maps = explain(network, images, methods, 2, keys=KEYS)
        return {repr(of): metric(kind).score(maps[repr(of)], maps.forward_pass, BATCH, of) for of in methods}

    expected = scores()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = scores()
    for name, of in found.items():
        for column, score in of.items():
            assert score.isfinite().all()
            torch.testing.assert_close(score.to(expected[name][column]), expected[name][column], rtol=0.2, atol=0.05)


def test_its_name_has_its_options(kind: type[AttributionMetric]) -> None:
    assert issubclass(kind, NamedByOptions)
    assert repr(kind()) == kind.__name__
    assert repr(metric(kind, seed=3)).endswith("seed=3)")
