from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import pytest

from lightning_modules.running import stopping
from lightning_modules.running.cli import run_main

FILE = "import torch\n\n\nclass MyNet(torch.nn.Linear):\n    pass\n"
ATTRIBUTION = ["evaluate_attribution", "--data.root", ".", "--model.weights", "shapes", "--out", "run"]
ROBUSTNESS = ["evaluate_robustness", *ATTRIBUTION[1:]]
TRAINING = ["train_classifier", "--data.root", "data", "--model.weights", "random", "--model.width", 0.05]
TRAINING += ["--model.hidden_features", 8, "--data.input_size", 32, "--data.resize_size", 36]
TRAINING += ["--trainer.accelerator", "cpu", "--out", "run"]
MAXIMIZATION = ["maximize_activation", *ATTRIBUTION[3:]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*ATTRIBUTION, "--model.methods", "[GradCan]"], '"model.methods": .*: GradCan. Did you mean GradCAM'),
        ([*ATTRIBUTION, "--model.methods", "GradCAM"], "A list stands in brackets, with quotes round it"),
        ([*ATTRIBUTION, "--model.methods", "[GradCAM,", "Saliency]"], "A list stands in brackets, with quotes"),
        ([*ATTRIBUTION, "--model.methods", "[{class_path: SmoothGrad, init_args: {n_sample: 3}}]"],
         "lightning_modules.SmoothGrad': Option 'n_sample' is not accepted. Did you mean n_samples"),
        ([*ATTRIBUTION, "--model.methods", "[my_file.MyNet]"], "my_file.MyNet does not correspond to a subclass of"),
        ([*ATTRIBUTION, "--model.methods", "[my_file.MyNot]"], "module 'my_file' has no attribute 'MyNot'"),
        ([*ATTRIBUTION, "--model.methods", "[gradcam]"], "gradcam. Did you mean GradCAM"),
        ([*ATTRIBUTION, "--model.wieghts", "x"], "--model.wieghts x. Did you mean --model.weights?"),
        ([*ATTRIBUTION, "--trainer.device", "1"], "--trainer.device .*Did you mean --trainer.devices?"),
        ([*ATTRIBUTION, "--trainer.accelerator", "cuba"], "invalid accelerator name: `accelerator='cuba'`"),
        ([*ATTRIBUTION, "--model.n_figures", "abc"], "model.n_figures.*Got value: abc"),
        ([*ATTRIBUTION, "--model.network", "resnet50"], "Did you mean torchvision.models.resnet50?"),
        ([*ATTRIBUTION, "--config", "bad.yaml"], "'wieghts'. Did you mean weights?"),
        ([*ATTRIBUTION, "--config", "nothere.yaml"], "File does not exist: "),
        (ATTRIBUTION[:-2], "the following arguments are required: out"),
        ([*ROBUSTNESS, "--model.attack", "PDG"], "PDG. Did you mean PGD?"),
        ([*ROBUSTNESS, "--model.attack.nrm", "2"], "Option 'nrm' is not accepted. Did you mean norm?"),
        ([*MAXIMIZATION, "--model.objective", "Channel"], "synthesis.Channel': .* required: layer"),
        ([*MAXIMIZATION, "--model.judges", "[vgg17]"], "model.judges, vgg17: network is 'vgg17': neither vgg16 nor"),
        (["predict", "x.png", "--interpolation", ""], "--interpolation is empty: give it a value, or leave it out."),
        (["predict", "x.png", "--batch_size", 10**20], "--batch_size must fit in 64 bits, got 1000"),
        (["predict"], "the following arguments are required: images"),
        (["predict", "x.png", "--weights", "shapes", "--accelerator", "tpu"], "--accelerator tpu does not fit: Requir"),
        (["train_classifier", "--data", "ShapeDataModule", "--out", "x"], "Did you mean ShapesDataModule"),
        ([*TRAINING, "--data.rot", "x"], "Option 'rot' is not accepted. Did you mean root"),
        ([*TRAINING, "--data.input_size", 10**11], "input_size must be from 1 to 10,000 pixels, got 100000000000."),
        ([*TRAINING, "--model.width", ".nan"], "model.width should be above 0 and at most 16, got nan."),
        ([*TRAINING, "--trainer.max_epochs", "0"], "trainer.max_epochs 0 trains no network, or validates none"),
        ([*TRAINING, "--trainer.limit_train_batches", "10_0"], "of batches, 1, or a share of them, 1.0, got 10_0"),
        ([*TRAINING, "--trainer.limit_test_batches", 1], "--trainer.limit_test_batches 1 has no effect here: leave it"),
        ([*ATTRIBUTION, "--seed_everything", -1], "--seed_everything should be from 0 to 4294967295, got -1."),
        (["evaluate_attribution", "photos"], "photos. Did you mean --data.root photos?"),
        (["demo", "--out", "my_file.py"], "--out should be a folder, but my_file.py is a file."),
    ],
)  # fmt: skip
def test_a_slip_is_explained(
    call: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(stopping, "listen", lambda: None)  # to signals, for the rest of this process
    (tmp_path / "my_file.py").write_text(FILE)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.png").touch()
    (tmp_path / "bad.yaml").write_text("model:\n  wieghts: shapes\n")
    script, *options = command
    with pytest.raises(SystemExit) as exited:
        call(lambda args: run_main(lambda: importlib.import_module(script).main(args)), *options)
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


def test_help_begins_with_what_is_asked_for(call: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call(evaluate_attribution.main, "--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: ")
    assert "--data.root ROOT --out OUT [options]" in shown.splitlines()[0]
    places = [shown.index(f"  --{name}") for name in ("out ", "model.weights ", "data.root ", "trainer.devices ")]
    assert places == sorted(places)
    # Of training, so not shown; but understood, and kept in configurations.
    assert "max_epochs" not in shown
    with pytest.raises(SystemExit, match="0"):
        call(evaluate_attribution.main, *ATTRIBUTION[1:], "--trainer.max_epochs", 7, "--print_config")
    assert "max_epochs: 7" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["1", "1.0"])
def test_a_limit_without_a_point_is_a_number_of_batches(
    call: Callable, capsys: pytest.CaptureFixture[str], limit: str
) -> None:
    """1 is a batch, 1.0 all of them, whatever was imported first: Lightning's own type would be either."""
    with pytest.raises(SystemExit, match="0"):
        call(evaluate_attribution.main, *ATTRIBUTION[1:], "--trainer.limit_val_batches", limit, "--print_config")
    assert f"limit_val_batches: {limit}\n" in capsys.readouterr().out
