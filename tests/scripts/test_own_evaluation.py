"""The evaluation that the README tells to write, in a folder of the reader's, gets what ours get."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Preprocess, decode_image
from lightning_modules import VGG16
from lightning_modules.results.storage import read_rows
from tests.scripts.test_readme import EXTENSIONS


@pytest.fixture
def options(shapes: Path, tmp_path: Path) -> list[object]:
    """Of a run into ``run``, over generated images and a file that is none."""
    (tmp_path / "my_evaluation.py").write_text(EXTENSIONS["my_evaluation"].code)
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
def test_it_is_resumed_and_leaves_everything(
    call: Callable, options: list[object], tmp_path: Path, shapes_network: VGG16, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.path.insert(0, str(tmp_path))
    main = importlib.import_module("my_evaluation").main
    call(main, *options, "--trainer.limit_test_batches", 2)
    assert "8 of 15 images" in capsys.readouterr().out
    parts = {part: part.read_bytes() for part in (tmp_path / "run/results").iterdir()}
    call(main, *options)
    again = capsys.readouterr().out
    assert all(part.read_bytes() == content for part, content in parts.items())
    rows = read_rows(tmp_path / "run/results").to_pandas()
    assert rows["path"].nunique() == len(rows) == 15
    good = rows[rows["status"] == "ok"]
    assert rows.loc[rows["status"] != "ok", "error"].tolist() == ["not an image in a known format"]
    expected = [probability_of_the_mirrored(shapes_network, tmp_path / "images" / path) for path in good["path"]]
    np.testing.assert_allclose(good["probability_mirrored"], expected, rtol=1e-4, atol=1e-7)
    assert (good["path"].str.split("/").str[0] == good["label_name"]).all()

    score = json.loads((tmp_path / "run/summary.json").read_text())["scores"]["probability_mirrored"]
    assert score["mean"] == pytest.approx(np.mean(expected))
    assert score["n"] == 14
    assert score["low"] <= score["mean"] <= score["high"]
    assert "probability_mirrored" in again
    assert "15 images, of which 1 failed" in again

    figures = sorted((tmp_path / "run/figures").iterdir())
    assert [figure.stem[:5] for figure in figures] == ["00000", "00001", "score"]
    assert all(np.asarray(Image.open(figure).convert("RGB")).std() > 10 for figure in figures)
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert {name.partition("/")[2] for name in board.Tags()["images"]} == {figure.stem for figure in figures}
    (shown,) = board.Scalars("3_scores/probability_mirrored")
    assert shown.value == pytest.approx(np.mean(expected))
