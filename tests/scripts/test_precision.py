"""Precisions that round the weights are refused by all scripts; a network that gives no numbers is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import pytest
import train_classifier
from PIL import Image

from lightning_modules import InputError
from tests.lightning_modules.fragile import NETWORK

OPTIONS = {
    evaluate_attribution: ("--data.root", "images", "--model.network", NETWORK, "--model.weights", "random"),
    evaluate_robustness: ("--data.root", "images", "--model.network", NETWORK, "--model.weights", "random"),
    maximize_activation: ("--data.classes", "[0]", "--model.weights", "shapes"),
    train_classifier: (
        *("--data.root", "images", "--model.weights", "random", "--model.width", 0.05),
        *("--model.hidden_features", 8, "--trainer.max_epochs", 1),
    ),
}


@pytest.fixture
def images(tmp_path: Path) -> None:
    """In two classes a black image, a grey, and one that is white."""
    for name, brightness in (("ape/0", 0), ("ape/1", 128), ("bee/0", 0), ("bee/1", 255)):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (brightness,) * 3).save(tmp_path / f"images/{name}.png")


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("script", OPTIONS, ids=lambda script: script.__name__)
def test_weights_of_half_precision_are_refused(call: Callable, images: None, script: Callable, precision: str) -> None:
    options = [*OPTIONS[script], "--trainer.accelerator", "cpu", "--trainer.precision", precision, "--out", "run"]
    if script is not maximize_activation:
        options += ["--data.num_workers", 0]
    with pytest.raises(InputError, match=r"rounds pixels, .* Use trainer\.precision bf16-mixed or 16-mixed"):
        call(script.main, *options)


@pytest.mark.filterwarnings("ignore:Guided Backpropagation is a rule for ReLUs")
@pytest.mark.parametrize("script", [evaluate_attribution, evaluate_robustness], ids=lambda script: script.__name__)
def test_an_image_without_logits_is_counted_by_strict(
    call: Callable, images: None, tmp_path: Path, script: Callable
) -> None:
    options = ["--model.network", NETWORK, "--model.weights", "random", "--strict", "--trainer.accelerator", "cpu"]
    assert call(script.main, "--data.root", "images", "--data.num_workers", 0, *options, "--out", "run") == 1
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["n_images"], summary["n_failed"], summary["n_labelled"]) == (4, 1, 3)
