"""An evaluation of a stranger's, in a file of their own and another folder, gets what ours get."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Preprocess, decode_image
from lightning_modules import VGG16
from lightning_modules.results.rows import read_rows
from tests.scripts.processes import Run, complete

FILE = '''"""How sure is the network of the same class in an image's mirror image? RUN gets a row for each image."""

from typing import Any

from datamodules import ImageFolderDataModule
from lightning_modules import EvaluationModule, ForwardPass, load_network
from lightning_modules.running import run_evaluation, run_main


class Mirrored(EvaluationModule):
    columns = ("mirrored_probability",)

    def __init__(self, weights: str = "IMAGENET1K_V1", network: str | dict[str, Any] = "vgg16", n_figures: int = 16):
        super().__init__(load_network(network, weights), n_figures)

    def evaluate(self, batch):
        seen = ForwardPass(self.network, batch["image"])
        mirrored = self.network(batch["image"].flip(3)).float().softmax(1)
        return self.outputs(seen, batch, {"mirrored_probability": mirrored.gather(1, seen.prediction[:, None])[:, 0]})


def main(args: list[str] | None = None) -> int:
    return run_evaluation(Mirrored, ImageFolderDataModule, description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
'''


@pytest.fixture
def options(shapes: Path, tmp_path: Path) -> list[object]:
    """Of a run into ``run``, over generated images and a file that is none."""
    (tmp_path / "my_evaluation.py").write_text(FILE)
    (tmp_path / "images").mkdir()
    for name in ("arrow", "star"):
        (tmp_path / "images" / name).mkdir()
        for file in sorted((shapes / "val" / name).iterdir())[:7]:
            (tmp_path / "images" / name / file.name).symlink_to(file)
    (tmp_path / "images/star/text.jpg").write_text("no image")
    return [
        *("--data.root", tmp_path / "images", "--data.num_workers", 0, "--data.batch_size", 4, "--out", "run"),
        *("--model.weights", "shapes", "--model.n_figures", 2, "--trainer.accelerator", "cpu"),
    ]


def probability_of_the_mirrored(network: VGG16, image: Path) -> float:
    """One image at a time, with nothing of ours but the network."""
    pixels = Preprocess(network.resize_size, network.input_size)(decode_image(image))
    with torch.no_grad():
        prediction = int(network(pixels[None]).argmax())
        mirrored = torch.from_numpy(np.ascontiguousarray(pixels.numpy()[:, :, ::-1]))
        return float(network(mirrored[None]).softmax(1)[0, prediction])


@pytest.mark.slow
def test_it_is_resumed_and_leaves_everything(options: list[object], tmp_path: Path, shapes_network: VGG16) -> None:
    first = complete("my_evaluation", [*options, "--trainer.limit_test_batches", 2], tmp_path)
    assert first.returncode == 0, first.stderr
    assert "8 images" in first.stdout
    parts = {part: part.read_bytes() for part in (tmp_path / "run/results").iterdir()}
    again = complete("my_evaluation", options, tmp_path)
    assert again.returncode == 0, again.stderr
    assert all(part.read_bytes() == content for part, content in parts.items())
    rows = read_rows(tmp_path / "run/results").to_pandas()
    assert rows["path"].nunique() == len(rows) == 15
    good = rows[rows["status"] == "ok"]
    assert rows.loc[rows["status"] != "ok", "error"].tolist() == ["not an image in a known format"]
    expected = [probability_of_the_mirrored(shapes_network, tmp_path / "images" / path) for path in good["path"]]
    np.testing.assert_allclose(good["mirrored_probability"], expected, rtol=1e-4, atol=1e-7)
    assert (good["path"].str.split("/").str[0] == good["label_name"]).all()

    score = json.loads((tmp_path / "run/summary.json").read_text())["scores"]["mirrored_probability"]
    assert score["mean"] == pytest.approx(np.mean(expected))
    assert score["n"] == 14
    assert score["low"] <= score["mean"] <= score["high"]
    assert "mirrored_probability" in again.stdout
    assert "15 images, of which 1 failed" in again.stdout

    figures = sorted((tmp_path / "run/figures").iterdir())
    assert [figure.stem[:5] for figure in figures] == ["00000", "00001", "score"]
    assert all(np.asarray(Image.open(figure).convert("RGB")).std() > 10 for figure in figures)
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert {name.partition("/")[2] for name in board.Tags()["images"]} == {figure.stem for figure in figures}
    (shown,) = board.Scalars("3_scores/mirrored_probability")
    assert shown.value == pytest.approx(np.mean(expected))


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(options: list[object], tmp_path: Path) -> None:
    one = complete("my_evaluation", options, tmp_path)
    assert one.returncode == 0, one.stderr
    two = Run("my_evaluation", [*options, "--trainer.devices", 2, "--out", "two"], tmp_path, world=2)
    assert two.wait() == [0, 0], two.output()
    a, b = (read_rows(tmp_path / name / "results").to_pandas() for name in ("run", "two"))
    assert a["path"].tolist() == b["path"].tolist()
    np.testing.assert_allclose(a["mirrored_probability"], b["mirrored_probability"], rtol=1e-5, atol=1e-7)


def test_it_is_as_short_as_the_readme_says() -> None:
    assert len([line for line in FILE.splitlines() if line.strip()]) <= 25
