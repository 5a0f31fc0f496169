from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import evaluate_attribution
import evaluate_robustness
import pack_shards
import pandas as pd
import pytest

from datamodules import DataError, remote
from lightning_modules.results.storage import read_rows
from lightning_modules.running.folder.run_folder import RunError
from tests.datamodules.servers import served
from tests.scripts.processes import complete
from tests.scripts.test_evaluate_attribution import same_rows

DECODED = ("--decoded", "--network", "vgg16", "--weights", "shapes", "--data.num_workers", 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), DECODED], ids=["tar", "decoded"])
def test_rows_from_shards_are_those_from_the_folder(
    call: Callable, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: tuple
) -> None:
    """Also for two processes of two workers, which go on where one process stopped."""
    images, boxes = tmp_path / "images", tmp_path / "boxes"
    for name in ("star", "heart"):
        shutil.copytree(shapes / "val" / name, images / name)
        shutil.copytree(shapes / "annotations/val" / name, boxes / name)
    (images / "star/empty.png").touch()
    where = ["--data.root", images, "--data.boxes", boxes]
    per_shard = () if how else ("--images_per_shard", 5)
    call(pack_shards.main, *where, "--out", "shards", *per_shard, *how)
    assert re.search(
        rf"21 images in {2 if how else 6} files, \d+\.\d MB\. Read them with --data\.root shards",
        capsys.readouterr().out,
    )

    options = ["--model.weights", "shapes", "--model.methods", "[GradCAM]", "--trainer.accelerator", "cpu"]
    options += ["--data.batch_size", 4, "--model.n_figures", 0]
    call(evaluate_attribution.main, *where, *options, "--out", "folder")
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


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(
    call: Callable, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    for name in ("star", "heart"):
        shutil.copytree(shapes / "val" / name, images / name)
    call(pack_shards.main, "--data.root", images, "--out", "shards", "--images_per_shard", 5)
    monkeypatch.setattr(remote, "WAITS", (0.0,))
    options = ["--model.weights", "shapes", "--model.methods", "[GradCAM]", "--trainer.accelerator", "cpu"]
    options += ["--data.batch_size", 4, "--model.n_figures", 0]
    call(evaluate_attribution.main, "--data.root", images, *options, "--out", "folder")
    with served(tmp_path / "shards") as server:
        root = f"{server.address}/{{00000..00003}}.tar"
        server.n_given = 1 + 4 + 2  # the index, what each is, and two of their contents
        with pytest.raises(DataError, match=r"0000\d.tar cannot be read: .*503"):
            call(evaluate_attribution.main, "--data.root", root, *options, "--out", "run")
        assert len(read_rows(tmp_path / "run/results")) in (0, 4, 8)
        server.n_given = None
        call(evaluate_attribution.main, "--data.root", root, *options, "--out", "run")
        # The same name and size, and another content: no run goes on with it.
        content = bytearray((tmp_path / "shards/00000.tar").read_bytes())
        content[-1] ^= 1
        (tmp_path / "shards/00000.tar").write_bytes(content)
        with pytest.raises(RunError, match=r"data\.shards_sha256 was"):
            call(evaluate_attribution.main, "--data.root", root, *options, "--out", "run")
    one, two = (read_rows(tmp_path / name / "results").to_pandas() for name in ("folder", "run"))
    assert len(two) == 20
    same_rows(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("evaluate", "options"),
    [
        (evaluate_attribution.main, ("--model.methods", "[GradCAM]", "--model.n_figures", 2)),
        (evaluate_robustness.main, ("--model.eps", "[4/255]", "--model.methods", "[]", "--model.n_figures", 0)),
    ],
    ids=["attribution", "robustness"],
)
def test_rows_from_decoded_shards_are_the_same_to_the_bit(
    call: Callable, shapes: Path, tmp_path: Path, evaluate: Callable, options: tuple
) -> None:
    """Of attribution the figures too, whose originals lie in the shards."""
    (tmp_path / "images").mkdir()
    for name in ("star", "heart"):
        shutil.copytree(shapes / "val" / name, tmp_path / "images" / name)
    (tmp_path / "images/star/empty.png").touch()
    where = ["--data.boxes", shapes / "annotations/val"] if evaluate is evaluate_attribution.main else []
    call(pack_shards.main, "--data.root", "images", *where, "--out", "decoded", *DECODED)
    common = ("--model.weights", "shapes", "--trainer.accelerator", "cpu", "--data.num_workers", 0)
    call(evaluate, "--data.root", "images", *where, *common, *options, "--out", "one")
    call(evaluate, "--data.root", "decoded", *common, *options, "--out", "two")
    one, two = (read_rows(tmp_path / name / "results").to_pandas() for name in ("one", "two"))
    assert (one["status"] == "failed").sum() == 1
    pd.testing.assert_frame_equal(two, one, check_exact=True)
    figures = [sorted((tmp_path / name / "figures").glob("*_*.png")) for name in ("one", "two")]
    assert [figure.name for figure in figures[0]] == [figure.name for figure in figures[1]]
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(*figures)] == [True] * len(figures[0])


def test_bad_input(call: Callable, shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        call(pack_shards.main, "--data.root", "nowhere", "--out", "shards")
    for options, message in (
        (("--data.exif_orientation", "true"), "exif_orientation goes with --decoded"),
        (("--decoded", "--images_per_shard", 5, "--network", "vgg16"), "--images_per_shard is for tar shards"),
    ):
        with pytest.raises(DataError, match=message):
            call(pack_shards.main, "--data.root", shapes / "val", "--out", "shards", *options)
    with pytest.raises(DataError, match="is not an empty folder"):
        call(pack_shards.main, "--data.root", shapes / "val", "--out", shapes)
