"""Generated shapes of which some bear a tag, a network that is trained on them, and the strategies that are found."""

from __future__ import annotations

import html
import json
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from evaluate_attribution import main as evaluate_attribution
from find_strategies import main as find_strategies
from PIL import Image
from report import main as report
from sklearn.metrics import adjusted_rand_score
from tensorboard import program

from datamodules import write_shapes
from lightning_modules import as_network
from lightning_modules.figures.saving import pixels_of
from lightning_modules.running import RunError
from tests.browser import visit
from tests.lightning_modules.strategies.tagged import (
    TAGGED,
    TaggedNet,
    accuracy,
    read_folder,
    trained,
    write_tagged,
)
from tests.scripts.processes import Run

NET = "tests.lightning_modules.strategies.tagged.TaggedNet"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes to learn from and to look at."""
    root = tmp_path_factory.mktemp("strategies")
    write_shapes(root / "shapes", n_train=480, n_val=256, n_pairs=0, seed=0)
    return root


def options(root: Path, name: str, images: Path) -> list[object]:
    words = ["--data.root", images, "--data.num_workers", 0, "--model.network", NET]
    words += ["--model.weights", root / f"{name}.pth", "--trainer.accelerator", "cpu", "--model.save_maps", "true"]
    return [*words, "--model.methods", "[GradCAM]", "--model.metrics", "[Sparseness]", "--model.target", "label"]


def explained(root: Path, name: str, tagged: tuple[str, ...]) -> Path:
    """The RUN of a network that was trained on images of which those of some classes are tagged."""
    train, val = (write_tagged(root / "shapes" / split, root / name / split, tagged) for split in ("train", "val"))
    torch.save(trained(train, seed=1).state_dict(), root / f"{name}.pth")
    words = [*options(root, name, val), "--out", root / f"run_{name}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["script"])
        assert evaluate_attribution([str(word) for word in words]) == 0
        assert find_strategies([str(root / f"run_{name}")]) == 0
    return root / f"run_{name}"


@pytest.fixture(scope="module")
def run(generated: Path) -> Path:
    """Of a network that knows tags."""
    return explained(generated, "tagged", tuple(TAGGED))


@pytest.mark.slow
@pytest.mark.training
def test_without_tags_nothing_is_suspicious(generated: Path) -> None:
    assert summary_of(explained(generated, "untagged", ()))["suspicious"] == []


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "strategies/summary.json").read_text())


@pytest.mark.training
def test_the_network_uses_the_tags(generated: Path, run: Path) -> None:
    """It is right about tagged images, and much less often so about the same images without their tags."""
    net = as_network(TaggedNet()).freeze()
    net.load_state_dict(torch.load(generated / "tagged.pth", weights_only=True))
    images, labels, names = read_folder(generated / "tagged/val")
    plain, _, _ = read_folder(write_tagged(generated / "shapes/val", generated / "plain", ()))
    is_tagged = torch.tensor([name.startswith("tagged") for name in names])
    assert accuracy(net, images[is_tagged], labels[is_tagged]) > 0.75
    assert accuracy(net, plain[is_tagged], labels[is_tagged]) < 0.3


@pytest.mark.training
def test_tagged_images_are_clusters_of_their_own_and_suspicious(run: Path) -> None:
    summary = summary_of(run)
    assert sorted(summary["suspicious"]) == sorted(TAGGED)
    rows = pd.read_parquet(run / "strategies/clusters.parquet")
    assert list(rows.columns) == ["path", "class", "cluster", "x", "y"]
    for name in TAGGED:
        own = rows[(rows["class"] == name) & rows["path"].str.startswith(f"{name}/")]
        is_tagged = own["path"].str.contains("/tagged_")
        assert is_tagged.sum() == 16
        assert adjusted_rand_score(is_tagged, own["cluster"]) >= 0.9
        (clusters,) = [each["clusters"] for each in summary["classes_by_gap"] if each["class"] == name]
        suspicious = [each for each in clusters if each["suspicious"]]
        assert len(suspicious) == 1
        assert all("tagged" in path for path in suspicious[0]["nearest"])
        assert suspicious[0]["region"]["drop"] > 0.3


@pytest.mark.training
def test_what_a_run_gets(run: Path, generated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "strategies"
    for name in TAGGED:
        (sheet,) = (folder / "figures").glob(f"class_*_{name}.png")
        assert pixels_of(sheet).shape[1] > 1000
    page = html.unescape((run / "index.html").read_text(encoding="utf-8"))
    assert "Strategies" in page
    for name in TAGGED:
        assert re.search(f"Cluster \\d of {name} is suspicious: without its region, which (lies|is) ", page)
    # The page of the run is kept true, and the run cleared as a whole.
    assert report([str(run)]) == 0
    assert "is suspicious" in (run / "index.html").read_text(encoding="utf-8")
    tensors = np.loadtxt(folder / "tensorboard/tensors.tsv")
    metadata = pd.read_csv(folder / "tensorboard/metadata.tsv", sep="\t")
    assert len(tensors) == len(metadata) > 240  # a few maps show nothing
    scores = ["probability", "sparseness"]
    assert list(metadata.columns) == ["label_name", "prediction_name", "top1", "class", "cluster", *scores, "path"]
    clusters = pd.read_parquet(folder / "clusters.parquet")
    assert metadata["cluster"].tolist() == (clusters["class"] + " " + clusters["cluster"].astype(str)).tolist()
    assert pixels_of(folder / "tensorboard/sprite.png").shape == (16 * 48, 16 * 48, 3)


@pytest.mark.training
def test_maps_that_are_made_anew_have_the_same_clusters(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("maps", "strategies"))
    assert find_strategies([str(copy)]) == 0
    before, again = (pd.read_parquet(folder / "strategies/clusters.parquet") for folder in (run, copy))
    assert again["path"].tolist() == before["path"].tolist()
    names = [rows["class"] + " " + rows["cluster"].astype(str) for rows in (before, again)]
    assert adjusted_rand_score(*names) > 0.95
    page = (copy / "index.html").read_text(encoding="utf-8")
    assert re.search(r"(\d+) of \1 images were read again for maps", page)
    assert find_strategies([str(copy), "--by", "features", "--classes", "[circle]"]) == 0
    by_features = pd.read_parquet(copy / "strategies/clusters.parquet")
    assert set(by_features["class"]) == {"circle"}
    assert by_features["path"].tolist() == before["path"][before["class"] == "circle"].tolist()
    places = before.loc[before["class"] == "circle", "x"].to_numpy()
    assert not np.allclose(by_features["x"], places, atol=1e-3)  # they lie elsewhere than by their maps


@pytest.mark.training
def test_a_run_of_two_processes_has_the_same_clusters(run: Path, generated: Path, tmp_path: Path) -> None:
    """Its maps lie in the parts of two; the graph of neighbours stands on maps that are equal to float16."""
    words = [*options(generated, "tagged", generated / "tagged/val"), "--trainer.devices", 2, "--out", "run"]
    assert Run("evaluate_attribution", words, tmp_path, world=2).wait() == [0, 0]
    assert find_strategies([str(tmp_path / "run")]) == 0
    one, two = (pd.read_parquet(folder / "strategies/clusters.parquet") for folder in (run, tmp_path / "run"))
    assert two[["path", "class"]].equals(one[["path", "class"]])
    names = [rows["class"] + " " + rows["cluster"].astype(str) for rows in (one, two)]
    assert adjusted_rand_score(*names) > 0.95
    assert sorted(summary_of(tmp_path / "run")["suspicious"]) == sorted(TAGGED)


@pytest.mark.training
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "Saliency"], "has no maps of 'Saliency', but of: GradCAM"),
        (["--classes", "[cube]"], "no class 'cube'"),
    ],
)
def test_slips(run: Path, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_strategies([str(run), *words])


@pytest.mark.training
def test_images_that_changed_are_refused(run: Path, generated: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    inputs = json.loads((copy / "inputs.json").read_text())
    inputs["data"]["sha256"] = "0"
    (copy / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(RunError, match=r"data\.sha256 was '0'"):
        find_strategies([str(copy)])


@pytest.mark.browser
@pytest.mark.training
def test_the_projector_in_a_browser(browser: str, run: Path, tmp_path: Path) -> None:
    """It shows the images, and the tags of some."""
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(run), "--port", "0", "--load_fast", "false"])
    address = board.launch()
    for _ in range(120):
        if b"strategies" in urllib.request.urlopen(f"{address}data/plugin/projector/runs", timeout=20).read():
            break
        time.sleep(0.5)
    else:
        raise TimeoutError("TensorBoard has not read the run")
    shot = tmp_path / "shot.png"
    visit(browser, f"{address}#projector", tmp_path, f"--screenshot={shot}", "--enable-unsafe-swiftshader")
    with Image.open(shot) as image:
        middle = np.asarray(image.convert("HSV"))[140:1000, 330:1190, 1]
    assert (middle > 60).sum() > 20_000, "there are no coloured images between the menus"
