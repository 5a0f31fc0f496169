"""A run says of how many images the network may have seen others pixels than were meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluate_attribution import main
from PIL import ExifTags, Image

from datamodules.images.decode import UNDER_ALPHA
from lightning_modules import AttributionModule
from lightning_modules.results.storage import read_rows
from lightning_modules.running.folder.run_folder import RunError
from tests.lightning_modules.fragile import NETWORK

OPTIONS = [
    *("--data.root", "photos", "--data.batch_size", 2, "--data.num_workers", 0, "--trainer.accelerator", "cpu"),
    *("--model.network", NETWORK, "--model.weights", "random", "--model.n_figures", 0, "--seed_everything", 0),
    *("--model.methods", "[Saliency]", "--model.metrics", "[]", "--out", "run"),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photos in three batches; two ask to be turned, in the first and in the last."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, orientation in (("a", 6), ("b", 1), ("d", 1), ("e", 3)):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.new("RGB", (50, 40), "gray").save(folder / f"{name}.jpg", exif=exif)
    Image.fromarray(np.zeros((40, 50, 4), np.uint8)).save(folder / "c.png")
    return folder


def test_it_is_told_once_and_a_continued_run_counts_all(
    call: Callable, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AttributionModule, "seconds_per_part", 0.0)
    assert call(main, *OPTIONS) == 0
    output = capsys.readouterr().out
    assert output.count("2 images ask by their EXIF orientation to be turned, and the network saw them unturned") == 1
    assert output.count("What turns them: --data.exif_orientation true") == 1
    assert output.count(f"1 image: {UNDER_ALPHA}.") == 1
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["n_unturned"], summary["file_notes"]) == (2, {UNDER_ALPHA: 1})
    rows = read_rows(tmp_path / "run/results").to_pandas()
    assert rows["exif_orientation"].tolist() == [6, 1, 1, 1, 3]
    assert rows["note"].fillna("").tolist() == ["", "", UNDER_ALPHA, "", ""]

    sorted((tmp_path / "run/results").glob("part-*"))[0].unlink()
    assert call(main, *OPTIONS) == 0
    again = json.loads((tmp_path / "run/summary.json").read_text())
    assert (again["n_unturned"], again["file_notes"]) == (2, {UNDER_ALPHA: 1})
    notes = json.loads((tmp_path / "run/report.json").read_text())["notes"]
    assert sum("EXIF" in note for note in notes) == 1


def test_turned_images_are_not_told_of_and_go_into_no_other_run(
    call: Callable, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, *OPTIONS, "--data.exif_orientation", "true") == 0
    assert "EXIF" not in capsys.readouterr().out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["n_unturned"], summary["file_notes"]) == (0, {UNDER_ALPHA: 1})
    with pytest.raises(RunError, match="exif_orientation"):
        call(main, *OPTIONS)
