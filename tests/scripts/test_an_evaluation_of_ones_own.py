"""The evaluation that the README tells to write, from a folder of the reader's: all that ours get, for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Preprocess, decode_image
from lightning_modules import load_vgg16
from lightning_modules.results.rows import read_rows
from tests.scripts.processes import complete
from tests.scripts.test_readme import EXTENSIONS


@pytest.mark.slow
def test_it_gets_rows_resuming_exactness_figures_and_tensorboard(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "my_evaluation.py").write_text(EXTENSIONS["my_evaluation"].code)
    common = ["--data.root", shapes / "val", "--model.weights", "shapes", "--trainer.accelerator", "cpu"]
    common += ["--data.batch_size", 5, "--data.num_workers", 0, "--model.n_figures", 3]
    for limit in (2, 4):
        limited = ["--trainer.limit_test_batches", limit, "--out", "run"]
        result = complete("my_evaluation", [*common, *limited], tmp_path)
        assert result.returncode == 0, result.stderr
        assert f"{5 * limit} images; accuracy top-1 100.0%" in result.stdout
        assert "probability_mirrored" in result.stdout
    rows = read_rows(tmp_path / "run/results").to_pandas()
    assert len(rows) == rows["path"].nunique() == 20
    # Two parts: what was computed first was not computed again.
    assert sorted(len(pd.read_parquet(part)) for part in (tmp_path / "run/results").iterdir()) == [10, 10]

    network, preprocess = load_vgg16("shapes"), Preprocess(128, 112)
    for row in rows.iloc[::4].to_dict("records"):
        image = preprocess(decode_image(shapes / "val" / row["path"]))[None]
        with torch.no_grad():
            expected = network(image.flip(3)).softmax(1)[0, network(image).argmax()]
        assert row["probability_mirrored"] == pytest.approx(float(expected), rel=1e-4)
    score = json.loads((tmp_path / "run/summary.json").read_text())["scores"]["probability_mirrored"]
    assert score["n"] == 20
    assert score["mean"] == pytest.approx(rows["probability_mirrored"].mean())
    assert score["low"] < score["mean"] < score["high"]

    figures = sorted(path.name for path in (tmp_path / "run/figures").iterdir())
    assert figures == [
        *("00000_arrow_arrow_00000.png", "00001_circle_circle_00001.png", "00002_crescent_crescent_00002.png"),
        "scores.png",
    ]
    pixels = torch.tensor(list(Image.open(tmp_path / "run/figures/scores.png").convert("RGB").getdata())).float()
    assert ((pixels - torch.tensor([0.0, 114, 178])).abs().amax(1) < 10).sum() > 500  # its bars
    board = EventAccumulator(str(tmp_path / "run/tensorboard")).Reload()
    assert board.Scalars("3_scores/probability_mirrored")[0].value == pytest.approx(score["mean"], rel=1e-5)
    assert {"1_whole_run/scores", "5_images/00000_arrow_arrow_00000"} <= set(board.Tags()["images"])
    other = complete("my_evaluation", [*common, "--seed_everything", 3, "--out", "run"], tmp_path)
    assert other.returncode == 2
    assert "holds a run of other settings: seed_everything was False, is now 3" in other.stderr
