"""Runs with a small /dev/shm and few open files, as in containers, end with the rows of any other."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from datamodules import pack_folder
from datamodules.boxes import Annotation, write_annotation
from lightning_modules.results.storage import read_rows
from tests.lightning_modules.fragile import NAMES, NETWORK

from .processes import Run, make_narrow

N_IMAGES = 1100
BATCH = ["--data.batch_size", 512, "--data.num_workers", 4]
OPTIONS = [
    *("--model.network", NETWORK, "--model.weights", "random", "--model.methods", "[GradCAM]", "--model.n_figures", 1),
    *("--model.target", "label", "--trainer.accelerator", "cpu", "--out", "run"),
]


@pytest.fixture(scope="module", autouse=True)
def _can_be_narrow() -> None:
    def attempt() -> None:
        try:
            make_narrow()
        except OSError:
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=attempt)
    process.start()
    process.join()
    if process.exitcode:
        pytest.skip("only root can mount a /dev/shm of another size")


@pytest.fixture(scope="module")
def images(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder images, a folder boxes: two boxes for each image, more than there may be open files."""
    root = tmp_path_factory.mktemp("many")
    known = sorted((shapes / "val").glob("*/*"))
    for name in NAMES:
        (root / "images" / name).mkdir(parents=True)
        (root / "boxes" / name).mkdir(parents=True)
    for k in range(N_IMAGES):
        file, name = known[k % len(known)], NAMES[k % len(NAMES)]
        with Image.open(file) as image:
            width, height = image.size
        boxes = ((30.0, 30.0, 70.0, 80.0), (k % 50, 20.0, width, height / 2))
        os.link(file, root / "images" / name / f"{k}.JPEG")
        write_annotation(root / "boxes" / name / f"{k}.xml", Annotation(width, height, (name, "bee"), boxes))
    pack_folder(root / "images", root / "shards", images_per_shard=300, boxes=root / "boxes")
    return root


def rows_of(folder: Path) -> pd.DataFrame:
    rows = read_rows(folder / "run/results").to_pandas().drop(columns="seconds", errors="ignore")
    return rows.sort_values("path", ignore_index=True)


@pytest.fixture(scope="module")
def plain(images: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The rows of a run that reads in the main process, in the room that there is."""
    folder = tmp_path_factory.mktemp("plain")
    options = ["--data.num_workers", 0, "--data.batch_size", 512]
    run = Run("evaluate_attribution", [*places(images, "images"), *options, *OPTIONS], folder)
    assert run.wait() == [0], run.output()
    return rows_of(folder)


def places(images: Path, kind: str) -> list[object]:
    boxes = ["--data.boxes", images / "boxes"] if kind == "images" else []
    return ["--data.root", images / kind, *boxes]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "shards"])
def test_rows_are_those_of_a_plain_run(images: Path, plain: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    run = Run("evaluate_attribution", [*places(images, kind), *BATCH, *OPTIONS], tmp_path, narrow=True)
    assert run.wait(120) == [0], run.output()
    rows = rows_of(tmp_path)
    assert len(rows) == N_IMAGES
    assert rows["energy_in_box"].notna().all()
    columns = [name for name in rows if name != "index"]  # which shards count anew
    pd.testing.assert_frame_equal(rows[columns], plain[columns], rtol=1e-4, atol=1e-5)
