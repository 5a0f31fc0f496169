from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from evaluate_attribution import main
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import SHAPE_NAMES, DataError
from lightning_modules import InputError, load_vgg16, save_vgg16
from lightning_modules.networks import compiling
from lightning_modules.results.storage import read_rows

METHODS = ("--model.methods", "[GradCAM, GuidedBackprop, {class_path: SmoothGrad, init_args: {n_samples: 2}}]")
NAMES = ["GradCAM", "GuidedBackprop", "SmoothGrad(n_samples=2)"]


@pytest.fixture(scope="module")
def images(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 images, one of each class."""
    folder = tmp_path_factory.mktemp("images") / "val"
    for name in SHAPE_NAMES:
        (folder / name).mkdir(parents=True)
        for file in sorted((shapes / "val" / name).iterdir())[:1]:
            shutil.copy(file, folder / name)
    return folder


@pytest.fixture
def options(images: Path, shapes: Path) -> list[Any]:
    return [
        *("--data.root", images, "--data.boxes", shapes / "annotations/val", "--data.num_workers", 0),
        *("--model.weights", "shapes", "--model.n_figures", 2, "--trainer.accelerator", "cpu"),
    ]


def rows_of(run: Path) -> pd.DataFrame:
    return read_rows(run / "results").to_pandas()


def same_rows(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Equal but for rounding: to 1e-5 relative, as convolutions round differently in batches of other sizes."""
    assert a.columns.tolist() == b.columns.tolist()
    for name in a.columns:
        if a[name].dtype == float:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-7, err_msg=name)
        else:
            assert a[name].equals(b[name]), name


@pytest.mark.slow
def test_what_a_run_leaves(call: Callable, options: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(main, *options, *METHODS, "--out", "run")
    run = tmp_path / "run"
    rows = rows_of(run)
    assert len(rows) == 8 * 3
    assert rows.groupby("path")["method"].apply(sorted).map(tuple).unique().tolist() == [tuple(NAMES)]
    assert (rows["status"] == "ok").all()
    assert rows["error"].isna().all()
    assert (rows["path"].str.split("/").str[0] == rows["label_name"]).all()
    assert (rows["target"] == rows["prediction"]).all()
    assert rows["probability"].between(1 / 8, 1).all()
    assert rows["top1"].mean() >= 0.95
    # Boxes are of the label's class, so a map of another class cannot be scored.
    assert (rows["energy_in_box"].notna() == (rows["target"] == rows["label"])).all()

    summary = json.loads((run / "summary.json").read_text())
    assert (summary["n_images"], summary["n_failed"], summary["n_labelled"]) == (8, 0, 8)
    assert list(summary["methods"]) == NAMES
    for name, of_method in rows.groupby("method"):
        for score in ("pointing_game", "energy_in_box"):
            assert summary["methods"][name]["scores"][score]["mean"] == pytest.approx(of_method[score].mean())

    figures = sorted(path.name for path in (run / "figures").iterdir())
    assert figures == ["00000_arrow_arrow_00000.png", "00001_circle_circle_00001.png", "ranking.png", "scores.png"]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    groups = ["5_images", "5_images", "1_whole_run", "1_whole_run"]
    assert sorted(events.Tags()["images"]) == sorted(f"{g}/{n.removesuffix('.png')}" for g, n in zip(groups, figures))
    with Image.open(run / "figures" / figures[0]) as image:
        assert image.size == (events.Images("5_images/00000_arrow_arrow_00000")[0].width, image.height)
        assert np.asarray(image).std() > 10

    output = capsys.readouterr().out
    assert "8 images; accuracy top-1" in output
    assert "SmoothGrad(n_samples=2)" in output
    assert "tensorboard --logdir run" in output


def test_other_settings_into_the_same_run_are_refused(call: Callable, options: list) -> None:
    options = [*options, "--model.methods", "[GradCAM]", "--trainer.limit_test_batches", 1, "--data.batch_size", 1]
    call(main, *options, "--out", "run")
    with pytest.raises(
        ValueError, match=r"run holds a run of other settings: model\.target was 'both', is now 'label'"
    ):
        call(main, *options, "--model.target", "label", "--out", "run")


@pytest.mark.slow
def test_a_run_goes_on_compiled_but_not_with_other_noise(
    call: Callable, options: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code changes no number. A run of before the noise was the same on every device would mix two kinds of it."""
    monkeypatch.setattr(compiling, "OPTIONS", {"backend": "aot_eager"})
    smooth = "[{class_path: SmoothGrad, init_args: {n_samples: 2}}]"
    options = [*options, "--model.methods", smooth, "--data.batch_size", 2]
    options += ["--model.n_figures", 0, "--out", "run", "--trainer.benchmark", "true"]
    inputs, summary = tmp_path / "run/inputs.json", tmp_path / "run/summary.json"
    for compile, n_batches in (("false", 1), ("true", 2)):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
        limited = [*options, "--trainer.limit_test_batches", n_batches, "--model.compile", compile]
        assert call(main, *limited) == 0
        found = json.loads(summary.read_text())
        assert found["n_images"] == 2 * n_batches
        assert found["produced_by"]["arithmetic"] == {
            "precision": "32-true",
            "compiled": compile == "true",
            "cudnn.allow_tf32": False,
            "cudnn.benchmark": True,
            "cudnn.deterministic": False,
            "float32_matmul_precision": "highest",
        }
    noted = json.loads(inputs.read_text())
    assert noted.pop("random_numbers") == "SplitMix64"
    inputs.write_text(json.dumps(noted))
    with pytest.raises(
        ValueError, match="run holds a run of other settings: random_numbers was not given, is now 'Spl"
    ):
        call(main, *options)


@pytest.mark.slow
def test_other_inputs_into_the_same_run_are_refused(call: Callable, options: list, tmp_path: Path) -> None:
    """The same names of options, but the file of the weights or the folder of images holds something else."""
    images, weights = tmp_path / "images", tmp_path / "mine.pth"
    shutil.copytree(options[1], images)
    network = load_vgg16("shapes")
    save_vgg16(network, weights)
    options = ["--data.root", images, *options[2:], "--model.weights", weights, "--model.methods", "[GradCAM]"]
    call(main, *options, "--out", "run")
    with torch.no_grad():
        network.layers["classifier.6"].bias += 1
    save_vgg16(network, weights)
    with pytest.raises(
        ValueError, match=r"other settings: weights_sha256 was '\w{64}', is now '\w{64}'\. .*--overwrite"
    ):
        call(main, *options, "--out", "run")
    image = next((images / "star").iterdir())
    content = image.read_bytes()
    image.write_bytes(content + b"\n")
    with pytest.raises(ValueError, match=r"data\.sizes_sha256 was '\w{64}', is now '\w{64}'"):
        call(main, *options, "--out", "run")
    image.unlink()
    with pytest.raises(ValueError, match=r"data\.n_images was 8, is now 7; data\.sha256 was"):
        call(main, *options, "--out", "run")
    (tmp_path / "run/notes.txt").write_text("of the user")
    call(main, *options, "--out", "run", "--overwrite")
    assert len(rows_of(tmp_path / "run")) == 7
    assert json.loads((tmp_path / "run/summary.json").read_text())["produced_by"]["sessions"] == 1
    assert (tmp_path / "run/notes.txt").exists()
    assert "overwrite" not in (tmp_path / "run/config.yaml").read_text()


@pytest.mark.slow
def test_a_flat_folder_without_labels(call: Callable, shapes: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes / "val/star", tmp_path / "flat")
    options = [
        "--data.root",
        "flat",
        "--model.weights",
        "shapes",
        "--model.methods",
        "[GradCAM]",
        "--model.n_figures",
        0,
    ]
    call(main, *options, "--model.target", "heart", "--trainer.accelerator", "cpu", "--out", "run")
    rows = rows_of(tmp_path / "run")
    assert (rows["label"] == -1).all()
    assert rows["top1"].isna().all()
    assert (rows["target"] == 4).all()
    with pytest.raises(InputError, match=r"model\.target is label, but"):
        call(main, *options, "--model.target", "label", "--trainer.accelerator", "cpu", "--out", "other")


@pytest.mark.slow
def test_bf16(call: Callable, options: list, tmp_path: Path) -> None:
    options = [*options, "--model.methods", "[GradCAM]"]
    call(main, *options, "--out", "exact")
    call(main, *options, "--out", "fast", "--trainer.precision", "bf16-mixed")
    exact, fast = rows_of(tmp_path / "exact"), rows_of(tmp_path / "fast")
    assert (exact["prediction"] == fast["prediction"]).mean() > 0.97
    assert (exact["energy_in_box"] - fast["energy_in_box"]).abs().mean() < 0.01
    assert not exact["probability"].equals(fast["probability"])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (["--model.target", "hart"], InputError, "no class 'hart'.*heart"),
        (["--model.target", "8"], InputError, "classes 0 to 7"),
        (["--model.target_layer", "x"], InputError, r"model\.target_layer: .* has no layer 'x'"),
        (["--model.weights", "shape"], InputError, "No weights are called 'shape'"),
        (["--model.methods", "[]"], InputError, "model.methods is empty"),
        (["--model.methods", "[GradCAM, GradCAM]"], InputError, "model.methods names GradCAM twice"),
        (["--model.methods", "[{class_path: GradCAM, init_args: {layer: features.99}}]"], InputError, "features.99"),
        (
            ["--model.metrics", "[{class_path: WeightRandomization, init_args: {layers: [features.1]}}]"],
            InputError,
            "cannot randomize 'features.1'",
        ),
        (["--data.root", "nowhere"], DataError, "nowhere does not exist"),
        (["--data.boxes", "nowhere"], DataError, "nowhere .data.boxes. does not exist"),
        (["--data.batch_size", "0"], DataError, "data.batch_size"),
    ],
)
def test_bad_input(call: Callable, options: list, change: list[str], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(main, *options, *change, "--out", "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--model.methods", "[GradCan]"], "GradCan"),
        (["--model.methods", "[nowhere.Method]"], "nowhere"),
    ],
)
def test_typos_in_options(
    call: Callable, options: list, change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        call(main, *options, *change, "--out", "run")
    assert message in capsys.readouterr().err


def test_an_error_is_one_line(run: Callable) -> None:
    process = run("evaluate_attribution.py", "--data.root", "nowhere", "--model.weights", "shapes", "--out", "run")
    assert process.returncode == 2
    assert process.stderr.splitlines()[-1].startswith("error: The image folder nowhere does not exist")
    assert "Traceback" not in process.stderr


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(call: Callable, run: Callable, options: list, tmp_path: Path) -> None:
    """Nine images do not divide by two processes, which Lightning starts; nothing is repeated and nothing is lost."""
    images = tmp_path / "images"
    shutil.copytree(options[1], images)
    shutil.copy(next((images / "star").iterdir()), images / "star/one_more.JPEG")
    options = ["--data.root", images, *options[2:], *METHODS]
    call(main, *options, "--out", "one")
    process = run("evaluate_attribution.py", *options, "--trainer.devices", 2, "--out", "two")
    assert process.returncode == 0, process.stderr
    one, two = rows_of(tmp_path / "one"), rows_of(tmp_path / "two")
    assert len(one) == 9 * 3
    same_rows(one, two)
    figures = [sorted(path.name for path in (tmp_path / name / "figures").iterdir()) for name in ("one", "two")]
    assert figures[0] == figures[1]
    tags = EventAccumulator(str(tmp_path / "two/tensorboard")).Reload().Tags()["images"]
    assert sorted(tag.partition("/")[2] + ".png" for tag in tags) == sorted(figures[1])


@pytest.mark.slow
def test_a_limited_run_typed_again_has_nothing_left_to_do(
    call: Callable, options: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [*options, "--model.methods", "[GradCAM]", "--model.metrics", "[]", "--data.batch_size", 1, "--out", "run"]
    allowed = "every image that the limit lets through has its rows"
    for limit, n, said in ((2, "2 of 8", ""), (2, "2 of 8", allowed), (0.5, "4 of 8", ""), (1.0, "8", "")):
        call(main, *few, "--trainer.limit_test_batches", limit)
        assert len(rows_of(tmp_path / "run")) == int(n.split()[0])
        summary = json.loads((tmp_path / "run/summary.json").read_text())
        assert (summary["n_images"], summary["n_listed"]) == (int(n.split()[0]), 8)
        text = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload().Tensors("report/text_summary")[0]
        assert text.tensor_proto.string_val[0].decode().startswith(f"{n} images")
        out = capsys.readouterr().out
        assert f"\n{n} images" in out
        assert ("left out" in out) == ("of" in n)
        assert ("Nothing was left" in out) == bool(said)
        assert said in out
    call(main, *few)
    assert "Nothing was left to compute: every image has its rows." in capsys.readouterr().out


def test_overwriting_deletes_what_a_run_left_and_nothing_else(call: Callable, options: list, tmp_path: Path) -> None:
    """Above all not images that the user keeps where the run is to go."""
    shutil.copytree(options[1], tmp_path / "mine/images")
    (tmp_path / "mine/notes.tmp").touch()
    few = [*options[2:], "--model.methods", "[GradCAM]", "--trainer.limit_test_batches", 1, "--data.batch_size", 1]
    few += ["--overwrite"]
    call(main, "--data.root", "mine/images", *few, "--out", "mine")
    assert len(list((tmp_path / "mine/images").glob("*/*"))) == 8
    assert (tmp_path / "mine/notes.tmp").exists()
    with pytest.raises(ValueError, match="mine/images lies in what --out mine would replace"):
        call(main, "--data.root", "mine/images", *few, "--out", "mine")
    with pytest.raises(ValueError, match="The image folder nowhere does not exist"):
        call(main, "--data.root", "nowhere", *few, "--out", "mine")
    assert len(rows_of(tmp_path / "mine")) > 0


@pytest.mark.slow
def test_what_a_run_without_rows_left_is_not_taken_for_ours(call: Callable, options: list, tmp_path: Path) -> None:
    """Figures come before rows: one that was stopped between them, and then corrected, starts anew."""
    few = [*options, "--model.methods", "[GradCAM]", "--trainer.limit_test_batches", 1, "--data.batch_size", 1]
    call(main, *few, "--out", "run")
    for part in (tmp_path / "run/results").iterdir():
        part.unlink()
    (tmp_path / "run/figures/00077_of_other_settings.png").touch()
    call(main, *few, "--model.target", "label", "--out", "run")
    assert not (tmp_path / "run/figures/00077_of_other_settings.png").exists()


@pytest.mark.slow
def test_the_same_folder_however_it_is_written(call: Callable, options: list, tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to(options[1])
    few = [*options[2:], "--model.methods", "[GradCAM]", "--trainer.limit_test_batches", 1, "--data.batch_size", 1]
    few += ["--out", "run"]
    for root in ("images", "./images/", tmp_path / "images", options[1]):
        call(main, "--data.root", root, *few)
    shutil.copytree(options[1], tmp_path / "copy")
    with pytest.raises(ValueError, match=r"paths\.root was '.*/val', is now '.*/copy'"):
        call(main, "--data.root", "copy", *few)
