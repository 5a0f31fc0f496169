from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lightning_modules import (
    FGSM,
    PGD,
    VGG16,
    GradCAM,
    GuidedBackprop,
    InputError,
    Network,
    SmoothGrad,
    attack_files,
    class_images,
    explain,
    explain_files,
    predict_files,
    preprocess_files,
    read_adversarial,
)
from lightning_modules.front import files
from lightning_modules.front.results import SHOWN
from lightning_modules.metrics import AverageDrop
from lightning_modules.results.storage import read_rows

pytestmark = pytest.mark.slow

METHODS = [GradCAM(), GuidedBackprop(), SmoothGrad(n_samples=2)]
IN_WORDS = "[GradCAM, GuidedBackprop, {class_path: SmoothGrad, init_args: {n_samples: 2}}]"


@pytest.fixture
def folder(shapes: Path, tmp_path: Path) -> Path:
    """Five photos, and what is none."""
    (tmp_path / "photos").mkdir()
    for photo in sorted((shapes / "val").glob("*/*"))[::17]:
        (tmp_path / "photos" / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "photos/broken.jpg").write_text("no image")
    return tmp_path / "photos"


def run_of(call: Callable, script: Any, *options: object) -> pd.DataFrame:
    few = ["--model.weights", "shapes", "--trainer.accelerator", "cpu", "--model.n_figures", 0]
    call(script.main, *few, *options, "--trainer.enable_progress_bar", "false", "--out", "run")
    return read_rows(Path("run/results")).to_pandas()


def sorted_rows(rows: pd.DataFrame, *keys: str) -> pd.DataFrame:
    return rows.assign(path=[Path(path).name for path in rows["path"]]).set_index(["path", *keys]).sort_index()


def assert_same_numbers(ours: pd.DataFrame, run: pd.DataFrame, *keys: str) -> None:
    """To the bit, but for what the files are called."""
    ours, run = (sorted_rows(rows, *keys) for rows in (ours, run))
    assert ours.index.equals(run.index)
    for name in [name for name in run if name in ours and name not in ("label", "label_name", "probability_label")]:
        mine, theirs = (rows[name].astype(object).where(rows[name].notna(), None).tolist() for rows in (ours, run))
        assert mine == theirs, name


def test_maps_and_rows_are_those_of_a_run(call: Callable, folder: Path, shapes_network: Network[VGG16]) -> None:
    explained = explain_files(shapes_network, folder, METHODS, metrics=[AverageDrop()], batch_size=2)
    metrics = ["--model.methods", IN_WORDS, "--model.metrics", "[AverageDrop]"]
    run = run_of(call, evaluate_attribution, "--data.root", folder, *metrics, "--data.batch_size", 2)
    assert_same_numbers(explained.to_pandas(), run, "method")
    assert list(explained.failed) == [("broken.jpg", "not an image in a known format")]
    assert len(explained) == len(explained.paths) == 5
    images = preprocess_files(shapes_network, [folder / path for path in explained.paths])
    assert torch.equal(images, explained.images)
    whole = explain_files(shapes_network, folder, METHODS)
    maps = explain(shapes_network, images, METHODS, keys=whole.paths)
    for name, attribution in maps.items():
        assert torch.equal(whole[name], attribution)
    assert torch.equal(whole.logits, maps.forward_pass.logits)
    assert explained.predictions == [shapes_network.class_names[k] for k in explained.logits.argmax(1).tolist()]
    with pytest.raises(InputError, match="no maps of 'CAM'; there are those of GradCAM"):
        explained["CAM"]


def test_attacked_pixels_are_those_of_a_run(call: Callable, folder: Path, shapes_network: Network[VGG16]) -> None:
    attacked = attack_files(shapes_network, folder, FGSM(), ["4/255", 0.1], [GradCAM()], batch_size=2)
    sweep = ["--model.eps", "[4/255, 0.1]", "--model.target", "predicted", "--model.save_adversarial", "true"]
    run = run_of(call, evaluate_robustness, "--data.root", folder, *sweep, "--data.batch_size", 2)
    assert_same_numbers(attacked.to_pandas(), run, "eps")
    kept = read_adversarial("run")
    assert list(attacked.adversarial) == ["4/255", "0.1"]
    of_file = {Path(path).name: i for i, path in enumerate(attacked.paths)}
    for path, of_budgets in kept.items():
        for eps in ("0", "4/255", "0.1"):
            assert torch.equal(of_budgets[eps], attacked[eps][of_file[Path(path).name]])
    assert torch.equal(attacked["0"], attacked.images)
    assert attacked.maps["0"]["GradCAM"].shape == attacked.maps["0.1"]["GradCAM"].shape == (5, 1, 112, 112)
    assert not torch.equal(attacked.maps["0"]["GradCAM"], attacked.maps["0.1"]["GradCAM"])
    assert "FGSM" in " ".join(text.get_text() for text in attacked.figure(0).texts)


def test_made_images_are_those_of_a_run(call: Callable, shapes_network: Network[VGG16]) -> None:
    made = class_images(shapes_network, ["star", 3], steps=4, seed=1, n_fresh=2)
    options = ["--data.classes", "[star, 3]", "--data.seed", 1, "--model.steps", 4, "--model.n_fresh", 2]
    run = run_of(call, maximize_activation, *options)
    assert sorted(made.paths) == sorted(run["image"])
    for path, pixels in zip(made.paths, made.images):
        assert np.array_equal(np.asarray(Image.open(f"run/images/{path}")), pixels)
    columns = ["activation", "activation_shifted", "probability", "total_variation"]
    ours, theirs = (rows.sort_values("path")[columns].values.tolist() for rows in (made.to_pandas(), run))
    assert ours == theirs
    assert len(made.figure(1).axes) > 3
    assert made._repr_html_().count("<img") == 2


def test_predictions(folder: Path, shapes_network: Network[VGG16]) -> None:
    found = predict_files(shapes_network, [folder, folder.parent / "nowhere.jpg"], top_k=2, batch_size=3)
    with torch.no_grad():
        expected = shapes_network(preprocess_files(shapes_network, found.paths)).softmax(1)
    torch.testing.assert_close(found.probabilities, expected)
    rows = found.to_pandas()
    assert rows["status"].tolist().count("ok") == 5
    assert [error for _, error in found.failed] == ["not an image in a known format", "No such file or directory"]
    shown = found._repr_html_()
    assert shown.count("<tr") == 1 + 2 * 5
    assert "nowhere.jpg: No such file" in shown
    assert "| image | class |" in repr(found)


def test_all_kinds_of_images_are_one(folder: Path, shapes_network: Network[VGG16]) -> None:
    file = sorted(folder.glob("*.JPEG"))[0]
    pixels = np.asarray(Image.open(file).convert("RGB"))
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    kinds = [str(file), file, Image.open(file), pixels, content.getvalue()]
    images = preprocess_files(shapes_network, kinds)
    assert all(torch.equal(image, images[0]) for image in images)
    assert torch.equal(preprocess_files(shapes_network, pixels), images[:1])
    assert torch.equal(preprocess_files(shapes_network, np.stack([pixels] * 2)), images[:2])
    found = predict_files(shapes_network, [pixels / 255, pixels, Image.open(file).convert("CMYK")])
    assert found.paths == ["image 1", "image 2"]
    assert found.failed[0][0] == "image 0"
    assert f"an array float64 {pixels.shape}; it should be uint8" in found.failed[0][1]
    with pytest.raises(InputError, match="image 0: an array float64"):
        preprocess_files(shapes_network, [pixels / 255])


def test_several_targets_are_explained_beside_each_other(folder: Path, shapes_network: Network[VGG16]) -> None:
    one, other = (explain_files(shapes_network, folder, METHODS[:2], name) for name in ("star", 3))
    both = explain_files(shapes_network, folder, METHODS[:2], ["star", 3])
    assert both["GradCAM"].shape == (5, 2, 1, 112, 112)
    for k, alone in enumerate((one, other)):
        assert torch.equal(both["GuidedBackprop"][:, k], alone["GuidedBackprop"])
    assert len(both.rows) == 5 * 2 * 2 + 1
    titles = " ".join(axes.get_title() for axes in both.figure(0).axes)
    assert titles.index("(star)") < titles.index(f"({shapes_network.class_names[3]})")
    lines = " ".join(text.get_text() for text in both.figure(0).texts).replace("\n", " ")
    assert f"maps explain: star, {shapes_network.class_names[3]}" in lines
    assert both._repr_html_().count("<img") == SHOWN
    assert "3 of 5 figures" in both._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "label"}, "there are no labels"),
        ({"target": []}, "target should name a class"),
        ({"target": "strar"}, "no class 'strar'. Did you mean one of: star"),
        ({"methods": []}, "at least one"),
    ],
)
def test_refused(folder: Path, shapes_network: Network[VGG16], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain_files(shapes_network, folder, **options)


def test_a_figure_that_is_not_there(folder: Path, shapes_network: Network[VGG16], monkeypatch: Any) -> None:
    explained = explain_files(shapes_network, sorted(folder.glob("*.JPEG"))[:1], [GradCAM()])
    with pytest.raises(InputError, match="There are 1 images, so figure takes 0 to 0, got 1"):
        explained.figure(1)
    monkeypatch.setattr(files, "MOST_FILES", 2)
    with pytest.raises(InputError, match=r"There are 6 images; .* more than 2 .*belong into a run"):
        attack_files(shapes_network, folder, PGD())
