"""A run over more images than a process may open files ends with all its rows."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import evaluate_attribution
import pytest
from PIL import Image

from datamodules import pack_folder
from datamodules.boxes import Annotation, write_annotation
from lightning_modules.results.storage import read_rows
from tests.lightning_modules.fragile import NAMES, NETWORK

N_IMAGES = 400
OPTIONS = [
    *("--model.network", NETWORK, "--model.weights", "random", "--model.methods", "[GradCAM]", "--model.n_figures", 0),
    *("--model.target", "label", "--trainer.accelerator", "cpu", "--data.batch_size", 128, "--data.num_workers", 4),
]


@pytest.fixture
def _few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
@pytest.mark.usefixtures("_few_files")
def test_rows_are_as_many_as_images(call: Callable, tmp_path: Path) -> None:
    """Of a folder of images and one of boxes, two for each image; and of both in shards."""
    for k in range(N_IMAGES):
        name = NAMES[k % len(NAMES)]
        for folder in ("images", "boxes"):
            (tmp_path / folder / name).mkdir(parents=True, exist_ok=True)
        file = tmp_path / f"images/{name}/{k}.png"
        if k < len(NAMES):
            Image.new("RGB", (60, 50), (60 * k, 90, 30)).save(file)
        else:
            os.link(tmp_path / f"images/{name}/{k % len(NAMES)}.png", file)
        boxes = ((10.0, 10.0, 30.0, 40.0), (k % 9, 20.0, 60.0, 25.0))
        write_annotation(tmp_path / f"boxes/{name}/{k}.xml", Annotation(60, 50, (name, name), boxes))
    pack_folder(tmp_path / "images", tmp_path / "shards", images_per_shard=150, boxes=tmp_path / "boxes")
    for kind, boxes in (("images", ["--data.boxes", "boxes"]), ("shards", [])):
        call(evaluate_attribution.main, "--data.root", kind, *boxes, *OPTIONS, "--out", f"run_{kind}")
        rows = read_rows(tmp_path / f"run_{kind}/results").to_pandas()
        assert len(rows) == N_IMAGES
        assert (rows["status"] == "ok").all()
        assert rows["energy_in_box"].notna().all()
