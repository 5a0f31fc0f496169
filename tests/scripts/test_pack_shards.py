from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import pack_shards
import pytest

from datamodules import DataError
from lightning_modules.results.rows import read_rows
from tests.scripts.processes import complete
from tests.scripts.test_evaluate_attribution import same_rows


@pytest.mark.slow
def test_rows_from_shards_are_those_from_the_folder(
    call: Callable, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also for two processes of two workers, which go on where one process stopped."""
    images, boxes = tmp_path / "images", tmp_path / "boxes"
    for name in ("star", "heart"):
        shutil.copytree(shapes / "val" / name, images / name)
        shutil.copytree(shapes / "annotations/val" / name, boxes / name)
    (images / "star/empty.png").touch()
    call(pack_shards.main, "--data.root", images, "--data.boxes", boxes, "--out", "shards", "--images_per_shard", 5)
    assert "21 images in 5 shards. Read them with --data.root shards" in capsys.readouterr().out

    options = ["--model.weights", "shapes", "--model.methods", "[GradCAM]", "--trainer.accelerator", "cpu"]
    options += ["--data.batch_size", 4, "--model.n_figures", 0]
    call(evaluate_attribution.main, "--data.root", images, "--data.boxes", boxes, *options, "--out", "folder")
    options = ["--data.root", tmp_path / "shards", *options, "--data.num_workers", 2, "--out", "run"]
    call(evaluate_attribution.main, *options, "--trainer.limit_test_batches", 2)
    part = read_rows(tmp_path / "run/results")
    assert len(part) == 8
    process = complete("evaluate_attribution", [*options, "--trainer.devices", 2], tmp_path, world=2)
    assert process.returncode == 0, process.stderr
    one, two = (read_rows(tmp_path / name / "results").to_pandas() for name in ("folder", "run"))
    assert len(two) == 21
    assert two["energy_in_box"].notna().sum() > 15
    same_rows(one, two)
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("folder", "run")]
    assert [summary["n_failed"] for summary in summaries] == [1, 1]


def test_bad_input(call: Callable, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        call(pack_shards.main, "--data.root", "nowhere", "--out", "shards")
    with pytest.raises(DataError, match="is not an empty folder"):
        call(pack_shards.main, "--data.root", shapes / "val", "--out", shapes)
