"""What the CPU's tests promise, on a GPU: the CPU's maps and rows, for any batch, after a stop, and in bfloat16.

``VGG_LENS_GPU=cpu`` runs on the CPU what can be: so these tests are tried where there is no GPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import pandas as pd
import pytest
import torch
from scipy import stats

from lightning_modules import (
    VGG16,
    AttributionMethod,
    ForwardPass,
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    IntegratedGradients,
    LayerCAM,
    Network,
    SmoothGrad,
    VarGrad,
    explain,
)
from lightning_modules.running.arithmetic import compute_to_float32

pytestmark = [pytest.mark.cuda, pytest.mark.slow]

DEVICE = os.environ.get("VGG_LENS_GPU", "cuda")
ACCELERATOR = {"cuda": "gpu"}.get(DEVICE, DEVICE)
N_IMAGES = 80
METHODS = [
    *(GradCAM(), LayerCAM(), GuidedBackprop(), GuidedGradCAM()),
    *(SmoothGrad(4), VarGrad(4), IntegratedGradients(8)),
]


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the scripts have it: no TensorFloat-32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
    compute_to_float32()


def on_both(
    network: Network[VGG16], n: int, methods: Sequence[AttributionMethod] = METHODS
) -> list[dict[str, torch.Tensor]]:
    """The maps of images on the CPU and on the device, both where the CPU can read them."""
    size = network.input_size
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    keys = [str(k) for k in range(n)]
    target = torch.arange(n) % len(network.class_names)
    found = []
    for device in ("cpu", DEVICE):
        network.to(device)
        maps = explain(network, images.to(device).to(next(network.parameters())), methods, target.to(device), keys=keys)
        found.append({name: attribution.cpu().double() for name, attribution in maps.items()})
    network.to("cpu")
    return found


def test_maps_are_those_of_the_cpu_in_float64(shapes_network: Network[VGG16], random_vgg16: Network[VGG16]) -> None:
    """Where no rounding opens or closes a ReLU."""
    for network, methods in ((shapes_network, METHODS), (random_vgg16, [GradCAM(), GuidedBackprop()])):
        for name, (ours, theirs) in _paired(*on_both(network.double(), 1, methods)).items():
            assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max(), name
        network.float()


def test_maps_are_those_of_the_cpu_in_float32(shapes_network: Network[VGG16]) -> None:
    """But for a few pixels, where a rounding opens or closes a ReLU, or another one wins in max-pooling."""
    for name, (ours, theirs) in _paired(*on_both(shapes_network, 4)).items():
        is_other = (ours - theirs).abs() > 1e-4 * theirs.abs().max()
        assert is_other.double().mean() <= 0.005, name


def _paired(first: dict, second: dict) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {name: (second[name], first[name]) for name in first}


Evaluate = Callable[..., pd.DataFrame]


@pytest.fixture
def evaluate(call: Callable, shapes: Path, tmp_path: Path) -> Evaluate:
    """Runs a script over the 80 images into a RUN of the name, and reads its rows."""

    def evaluate(script: Callable, name: str, *options: object, accelerator: str = ACCELERATOR) -> pd.DataFrame:
        of_images = ("--data.root", shapes / "val", "--data.num_workers", 2)
        data = of_images if script is not maximize_activation else ("--data.classes", "[star, ring]")
        shared = ("--model.weights", "shapes", "--model.n_figures", 0, "--trainer.accelerator", accelerator)
        assert call(script.main, *data, *shared, *options, "--trainer.devices", 1, "--out", name) == 0
        rows = pd.read_parquet(tmp_path / name / "results")
        keys = [key for key in ("path", "method", "eps") if key in rows]
        return rows.set_index(keys).sort_index()

    return evaluate


def options_of(script: Callable) -> list[object]:
    if script is evaluate_attribution:
        return ["--model.methods", "[GradCAM, GuidedBackprop]", "--model.metrics", "[AverageDrop]"]
    return ["--model.eps", "[2/255]"] if script is evaluate_robustness else ["--model.steps", 8]


def assert_alike(first: pd.DataFrame, second: pd.DataFrame, within: float) -> None:
    assert first.index.equals(second.index)
    assert (first["status"] == "ok").all()
    assert (first["prediction"] == second["prediction"]).mean() >= 0.98
    for name in ("probability", "average_drop", "total_variation"):
        if name in first:
            difference = (first[name] - second[name]).abs()
            assert (difference <= within).mean() >= 0.98, f"{name}: {difference.max()}"


@pytest.mark.parametrize(
    "script", [evaluate_attribution, evaluate_robustness, maximize_activation], ids=lambda script: script.__name__
)
def test_rows_are_those_of_the_cpu(evaluate: Evaluate, script: Callable) -> None:
    options = options_of(script)
    assert_alike(evaluate(script, "gpu", *options), evaluate(script, "cpu", *options, accelerator="cpu"), within=1e-3)


@pytest.mark.parametrize("script", [evaluate_attribution, evaluate_robustness], ids=lambda script: script.__name__)
def test_rows_do_not_depend_on_the_batch(evaluate: Evaluate, script: Callable) -> None:
    runs = [evaluate(script, f"of_{size}", *options_of(script), "--data.batch_size", size) for size in (7, 64, 1)]
    for other in runs[1:]:
        assert_alike(runs[0], other, within=1e-4)


def test_a_run_goes_on(evaluate: Evaluate) -> None:
    options = [*options_of(evaluate_attribution), "--data.batch_size", 16]
    begun = evaluate(evaluate_attribution, "begun", *options, "--trainer.limit_test_batches", 2)
    assert len(begun) == 2 * 32
    gone_on = evaluate(evaluate_attribution, "begun", *options)
    assert len(gone_on) == 2 * N_IMAGES
    assert_alike(gone_on, evaluate(evaluate_attribution, "at_once", *options), within=1e-5)


def test_bfloat16_gives_nearly_the_same_maps(shapes_network: Network[VGG16]) -> None:
    network = shapes_network.to(DEVICE)
    size = network.input_size
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    methods = [GradCAM(), GuidedBackprop()]
    exact = explain(network, images, methods, 0)
    with torch.autocast(DEVICE, torch.bfloat16):
        rounded = explain(network, images, methods, 0)
    for name, least in (("GradCAM", 0.97), ("GuidedBackprop", 0.9)):
        for one, other in zip(exact[name].cpu(), rounded[name].float().cpu()):
            assert stats.spearmanr(one.flatten(), other.flatten()).statistic > least
    shapes_network.to("cpu")


@pytest.mark.filterwarnings("ignore:A batch of .* does not fit")
def test_a_batch_that_does_not_fit_is_halved(evaluate: Evaluate, tmp_path: Path) -> None:
    if DEVICE != "cuda":
        pytest.skip("only a GPU's memory can be limited")
    whole = evaluate(evaluate_attribution, "whole", *options_of(evaluate_attribution), "--data.batch_size", 80)
    used, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.6 * used / total)
    try:
        halved = evaluate(evaluate_attribution, "halved", *options_of(evaluate_attribution), "--data.batch_size", 80)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_alike(halved, whole, within=1e-4)


def test_the_run_says_which_device_it_was(evaluate: Evaluate, tmp_path: Path) -> None:
    evaluate(evaluate_attribution, "told", *options_of(evaluate_attribution), "--trainer.limit_test_batches", 1)
    (told,) = json.loads((tmp_path / "told/summary.json").read_text())["produced_by"]["devices"]
    if DEVICE == "cuda":
        assert torch.cuda.get_device_name(0) in told


def test_a_pass_leaves_no_memory_behind(shapes_network: Network[VGG16]) -> None:
    """A second batch takes no more than the first: nothing of a pass is kept beyond its maps."""
    if DEVICE != "cuda":
        pytest.skip("the CPU does not count")
    network, size = shapes_network.to(DEVICE), shapes_network.input_size
    left = []
    for _ in range(3):
        maps = explain(network, torch.rand(8, 3, size, size, device=DEVICE), METHODS, 0)
        assert isinstance(maps.forward_pass, ForwardPass)
        del maps
        left.append(torch.cuda.memory_allocated())
    assert left[1] == left[2]
    shapes_network.to("cpu")
