"""The same photos as people have them: in folders of WordNet ids or of indices, flat with a table, in shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import pack_shards
import pandas as pd
import pytest

from datamodules.imagenet import imagenet_classes
from lightning_modules.results.storage import read_rows


@pytest.fixture
def layouts(photos: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Name -> options that name the photos in this layout."""
    lines = ["filename,wnid"]
    for photo in sorted(photos.glob("*/*")):
        wnid = photo.parent.name
        index = tmp_path / "indices" / str(imagenet_classes()[wnid][0])
        for folder in (index, tmp_path / "flat"):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder)
        lines.append(f"{photo.name},{wnid}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    table = ["--data.labels", str(tmp_path / "labels.csv")]
    pack_shards.main(["--data.root", str(tmp_path / "flat"), *table, "--out", str(tmp_path / "shards")])
    return {
        "folders": ["--data.root", str(photos)],
        "indices": ["--data.root", str(tmp_path / "indices")],
        "table": ["--data.root", str(tmp_path / "flat"), *table],
        "shards": ["--data.root", str(tmp_path / "shards")],
    }


@pytest.mark.photos
@pytest.mark.slow
def test_the_same_rows_and_accuracy(
    call: Callable, layouts: dict[str, list[str]], squeezenet_weights: Path, tmp_path: Path
) -> None:
    network = ["--model.network", "torchvision.models.squeezenet1_0", "--model.weights", squeezenet_weights]
    options = [*network, "--model.methods", "[GradCAM]", "--model.metrics", "[]", "--model.n_figures", 0]
    options += ["--model.input_size", 96, "--model.resize_size", 110]  # enough to tell whether the rows are the same
    options += ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--data.num_workers", 0]
    rows, accuracies = {}, {}
    for name, where in layouts.items():
        call(evaluate_attribution.main, *where, *options, "--out", name)
        frame = read_rows(tmp_path / name / "results").to_pandas()
        frame["path"] = [Path(path).name for path in frame["path"]]
        rows[name] = frame.sort_values("path", ignore_index=True)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        accuracies[name] = summary["top1"], summary["top5"]
    assert len(rows["folders"]) == 70
    assert (rows["folders"]["label"] >= 0).all()
    for name in ("indices", "table", "shards"):
        pd.testing.assert_frame_equal(rows[name], rows["folders"], rtol=1e-5)
        assert accuracies[name] == accuracies["folders"]
