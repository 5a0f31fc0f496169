from __future__ import annotations

import importlib
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


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*ATTRIBUTION, "--model.methods", "[GradCan]"], "--model.methods: no AttributionMethod is called GradCan. Did "
         "you mean GradCAM or XGradCAM? Known: "),
        ([*ATTRIBUTION, "--model.methods", "GradCAM"], "--model.methods: should be a list: '[GradCAM]'."),
        ([*ATTRIBUTION, "--model.methods", "[{class_path: SmoothGrad, init_args: {n_sample: 3}}]"],
         "SmoothGrad has no option n_sample. Did you mean n_samples? Its options: n_samples, noise_level, clip"),
        ([*ATTRIBUTION, "--model.methods", "[{class_path: SmoothGrad, init_args: {n_samples: many}}]"],
         "--model.methods: n_samples should be a whole number, got many."),
        ([*ATTRIBUTION, "--model.methods", "[{class_path:SmoothGrad}]"], "a space has to follow each colon"),
        ([*ATTRIBUTION, "--model.methods", "[my_file.MyNet]"],
         "my_file.MyNet is not one of those asked for here: derive it from lightning_modules.methods.base.Attri"),
        ([*ATTRIBUTION, "--model.methods", "[my_file.MyNot]"], "my_file.MyNot cannot be imported: AttributeErr"),
        ([*ATTRIBUTION, "--model.methods", "[my_fil.MyNet]"], "my_fil.MyNet cannot be imported: ModuleNotFound"),
        ([*ATTRIBUTION, "--model.metrics", "[PointingGam]"], "is called PointingGam. Did you mean PointingGame?"),
        ([*ATTRIBUTION, "--model.wieghts", "x"], "There is no option --model.wieghts. Did you mean --model.weights"),
        ([*ATTRIBUTION, "--trainer.device", "1"], "no option --trainer.device. Did you mean --trainer.devices"),
        ([*ATTRIBUTION, "--trainer.precision", "bf61"], "--trainer.precision: should be one of 64, 32, 16, "),
        ([*ATTRIBUTION, "--trainer.accelerator", "cuba"], "invalid accelerator name: `accelerator='cuba'`"),
        ([*ATTRIBUTION, "--trainer.accelerator", "cpu", "--trainer.devices", "0"], "`Trainer(devices='0')` value"),
        ([*ATTRIBUTION, "--model.n_figures", "abc"], "--model.n_figures: should be a whole number, got abc."),
        ([*ATTRIBUTION, "--model.network", "resnet50"], "Did you mean torchvision.models.resnet50?"),
        ([*ATTRIBUTION, "--config", "bad.yaml"], "There is no option --model.wieghts. Did you mean --model.weights"),
        ([*ATTRIBUTION, "--config", "nothere.yaml"], "File does not exist: "),
        ([*ATTRIBUTION, "--data.num_workers", "-1"], "data.num_workers must be at least 0, got -1."),
        ([*ATTRIBUTION, "heart"], "'heart' belongs to no option. A value that holds spaces needs quotes"),
        (ATTRIBUTION[:-2], "the following arguments are required: out"),
        ([*ROBUSTNESS, "--model.attack", "PDG"], "no Attack is called PDG. Did you mean PGD? Known: APGD, DDN, "),
        ([*ROBUSTNESS, "--model.attack.nrm", "2"], "FGSM has no option nrm. Did you mean norm? Its options: norm, "),
        ([*ROBUSTNESS, "--model.attack.norm", "3"], "--model.attack: norm should be one of inf, 2, 1, got 3."),
        ([*ROBUSTNESS, "--model.eps", "4/255"], "--model.eps: should be a list: '[4/255]'."),
        ([*MAXIMIZATION, "--model.objective", "Channel"], "Channel needs layer: {class_path: Channel, init_args: "),
        ([*MAXIMIZATION, "--model.objective", "ClassLogits"], "is called ClassLogits. Did you mean ClassLogit?"),
        ([*MAXIMIZATION, "--data.clases", "0"], "no option --data.clases. Did you mean --data.classes"),
        ([*MAXIMIZATION, "--model.judges", "vgg16"], "--model.judges: should be a list: '[vgg16]'."),
        ([*MAXIMIZATION, "--model.judges", "[vgg17]"], "model.judges, vgg17: network is 'vgg17': neither vgg16 nor"),
        ([*MAXIMIZATION, "--model.judges", "[{network: efficientnet_lite0, weights: random}]"],
         "model.judges: efficientnet_lite0 has no class called 'arrow' or 'circle' or 'crescent' or 'cross' or "),
        (["predict", "x.png", "--wieghts", "shapes"], "There is no option --wieghts. Did you mean --weights?"),
        (["predict", "x.png", "--interpolation", ""], "--interpolation is empty: give it a value, or leave it out."),
        (["predict", "x.png", "--batch_size", 10**20], "--batch_size must fit in 64 bits, got 1000"),
        (["predict", "x.png", "--mean", "[a, b]"], "--mean: should be a list, each a number, got [a, b]."),
        (["predict", "x.png", "--mean", "{a: b}"], "--mean: should be a list, in brackets, got {a: b}."),
        (["predict"], "the following arguments are required: images"),
        (["train_classifier", "--data.root", "nowhere", "--out", "run", "--trainer.accelerator", "cpu"],
         "nowhere holds no class folders to train on: it should hold nowhere/CLASS/*.jpg, or such folders in train"),
        (["train_classifier", "--data", "ShapeDataModule", "--out", "x"], "Did you mean ShapesDataModule or Image"),
        ([*ATTRIBUTION, "--seed_everything", -1], "--seed_everything should be from 0 to 4294967295, got -1."),
        ([*ATTRIBUTION, "--data.min_crop", "-1"], "data.min_crop must be a share of an image's area, above 0"),
        ([*ATTRIBUTION, "--data.seed", "-1"], "data.seed must be at least 0, got -1."),
        ([*ATTRIBUTION, "--data.batch_size", ""], "--data.batch_size: should be a whole number, got an empty text."),
        ([*ATTRIBUTION[:-1], ""], "--out is empty: give it a value, or leave it out."),
        ([*ATTRIBUTION, "--data.num_workers", "abc"], "--data.num_workers: should be a whole number, got abc."),
        ([*ATTRIBUTION, "--model.input_size", 10**11], "the side of a square in whole pixels, from 1 to 10,000"),
        ([*TRAINING, "--data.input_size", 10**11], "input_size must be from 1 to 10,000 pixels, got 100000000000."),
        ([*ATTRIBUTION, "--data.batch_size", "null"], "--data.batch_size: should be a whole number, got null."),
        ([*TRAINING, "--data.n_originals", "-1"], "data.n_originals must be at least 0, got -1."),
        ([*TRAINING, "--model.width", ".nan"], "model.width should be above 0 and at most 16, got nan."),
        ([*TRAINING, "--model.hidden_features", 10**11], "hidden_features should be 1 to 65,536, got 100000000000."),
        ([*TRAINING, "--model.learning_rate", "1e999"], "model.learning_rate should be a number above 0, got inf."),
        ([*TRAINING, "--model.dropout", "1"], "model.dropout should be at least 0 and below 1, got 1.0."),
        ([*TRAINING, "--trainer.max_epochs", "0"], "trainer.max_epochs 0 trains no network, or validates none"),
        ([*TRAINING, "--patience", "-1"], "--patience: should be a whole number of at least 1, got -1."),
        (["predict", "x.png", "--top_k", 0], "--top_k: should be a whole number of at least 1, got 0."),
        (["compare_runs", "a", "b", "--n_images", -1], "--n_images: should be a whole number of at least 0, got -1."),
        (["predict", "x.png", "--weights", "shapes", "--accelerator", "cuba"], "--accelerator cuba does not fit: You"),
        (["predict", "x.png", "--weights", "shapes", "--accelerator", "tpu"], "--accelerator tpu does not fit: Requir"),
        ([*ATTRIBUTION, "--trainer.callbacks", "[x]"], "no Callback is called x. Known: RunWriter, SynthesisPr"),
        ([*ATTRIBUTION, "--trainer.plugins", "x"], "no Precision is called x. Give its import path, such as my_file.M"),
        (["demo", "--out", "my_file.py"], "--out should be a folder, but my_file.py is a file."),
        (["benchmark", "--rounds", "abc"], "--rounds: should be a whole number of at least 1, got abc."),
        (["evaluate_attribution", "photos"], "'photos' belongs to no option. Did you mean --data.root photos?"),
        (["evaluate_robustness", "photos", "--out", "x"], "belongs to no option. Did you mean --data.root photos?"),
        (["train_classifier", "photos", "--out", "x"], "belongs to no option. Did you mean --data.root photos?"),
        (["pack_shards", "photos"], "belongs to no option. Did you mean --data.root photos?"),
        (["maximize_activation", "tabby"], "belongs to no option. Did you mean --data.classes tabby?"),
        (["describe_network", "resnet50"], "belongs to no option. Did you mean --network resnet50?"),
        ([*ATTRIBUTION, "--model.methods", "[GradCAM,", "Saliency]"], "A value that holds spaces needs quotes: '[Gr"),
        ([*ATTRIBUTION, "-data.root", "x"], "There is no option -data.root. Did you mean --data.root"),
        ([*ATTRIBUTION, "--model.methods", "[gradcam]"], "AttributionMethod is called gradcam. Did you mean GradCAM"),
        ([*ATTRIBUTION, "--model.methods", "{class_path: Saliency}"], "should be a list, in brackets, got {cla"),
        ([*ATTRIBUTION, "--model.methods", "[[GradCAM]]"], "should be the name of a class, got ['GradCAM']."),
        ([*ATTRIBUTION, "--data", "5"], "--data: should be options, as YAML, or a file of them, got 5."),
        ([*ATTRIBUTION, "--data", "{rot: x}"], "There is no option --data.rot. Did you mean --data.root"),
        ([*TRAINING, "--data.rot", "x"], "--data: ImageFolderDataModule has no option rot. Did you mean root?"),
        ([*TRAINING, "--data.batch_size", "abc"], "--data: batch_size should be a whole number, got abc."),
        ([*TRAINING, "--trainer.limit_train_batches", "abc"], "should be a number of batches, or a share, got abc."),
        ([*TRAINING, "--trainer.limit_test_batches", 1], "--trainer.limit_test_batches 1 has no effect here: leave it"),
        ([*ATTRIBUTION, "--model", "{target: null}"], "--model.target is null: give it a value, or"),
        (["demo", "--ot", "x"], "There is no option --ot. Did you mean --out?"),
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
    assert message in error
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
