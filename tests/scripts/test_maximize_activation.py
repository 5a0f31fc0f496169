from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import maximize_activation
import pyarrow.parquet as pq
import pytest

from datamodules import DataError
from lightning_modules.errors import InputError
from lightning_modules.exemplars import read_exemplars
from lightning_modules.results.storage import part_name, read_rows
from lightning_modules.results.summaries.synthesis import MEASURED
from lightning_modules.running.folder.run_folder import RunError
from tests.scripts.processes import complete

COMMON = ["--model.weights", "shapes", "--model.steps", "12", "--trainer.accelerator", "cpu", "--out", "run"]


def run(out: Path, *options: str, world: int = 1) -> subprocess.CompletedProcess:
    return complete("maximize_activation", [*COMMON, *options], out.parent, world=world)


def images(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "images").glob("*.png")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over five classes in one process."""
    out = tmp_path_factory.mktemp("whole") / "run"
    result = run(out, "--data.classes", "[0, 1, 2, 3, 4]")
    assert result.returncode == 0, result.stderr
    assert "5 images" in result.stdout
    return out


def test_what_a_run_leaves(whole: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        ".lock", "config.yaml", "figures", "images", "inputs.json", "report.json", "results", "sessions.json",
        "summary.json", "tensorboard",
    }  # fmt: skip
    assert len(images(whole)) == 5
    assert {path.name for path in (whole / "figures").iterdir()} == {
        "contact_sheet_both_000.png",
        *(f"{k:05d}_{name.removesuffix('.png')}.png" for k, name in enumerate(sorted(images(whole)))),
    }


def test_tensorboard_shows_how_it_grew(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    curves, pictures = events.Tags()["scalars"], events.Tags()["images"]
    assert {
        "4_curves_over_steps/activation/0003_cross_seed0",
        "4_curves_over_steps/total_variation/0003_cross_seed0",
    } <= set(curves)
    assert [point.step for point in events.Scalars("4_curves_over_steps/activation/0003_cross_seed0")] == [1, 8, 12]
    assert [point.step for point in events.Images("6_growing/0003_cross_seed0")] == [8, 12]
    assert any(name.endswith("contact_sheet_both_000") for name in pictures)


def test_coarse_to_fine_by_its_options(call: Callable, tmp_path: Path) -> None:
    """They stand in config.yaml, and the run is repeated by it to the pixel."""
    words = ["--model.schedule", "CoarseToFine", "--model.transforms", "[RandomView, RandomColor]"]
    words += ["--model.schedule.sizes", "[0.5, 1.0]", "--data.classes", "[star]", "--model.n_figures", "0"]
    call(maximize_activation.main, *COMMON, *words)
    call(maximize_activation.main, "--config", "run/config.yaml", "--out", "again")
    assert images(tmp_path / "again") == images(tmp_path / "run")
    assert "CoarseToFine" in (tmp_path / "run/config.yaml").read_text()
    call(maximize_activation.main, *COMMON, *words[:2], *words[6:], "--out", "other")
    assert images(tmp_path / "other") != images(tmp_path / "run")


@pytest.mark.slow
def test_two_processes_give_the_same_images(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--data.classes", "[0, 1, 2, 3, 4]", "--trainer.devices", "2", "--data.batch_size", "1")
    result = run(out, *options, world=2)
    assert result.returncode == 0, result.stderr
    assert images(out) == images(whole)
    assert len(list((out / "results").glob("*.parquet"))) >= 2
    assert read_rows(out / "results")["path"].to_pylist() == read_rows(whole / "results")["path"].to_pylist()


def test_interrupted_and_continued(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = [*COMMON, "--model.steps", 2, "--model.n_fresh", 1, "--model.n_figures", 0]
    classes, out = ["--data.classes", "[0, 1, 2]"], tmp_path / "run"
    call(maximize_activation.main, *few, *classes, "--data.batch_size", 2, "--trainer.limit_test_batches", 1)
    assert "2 of 3 images" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    call(maximize_activation.main, *few, *classes)
    assert "3 images" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(read_rows(out / "results")) == 3
    call(maximize_activation.main, *few, *classes, "--out", "whole")
    assert images(out) == images(tmp_path / "whole")
    with pytest.raises(RunError, match=r"data\.classes was \['0', '1', '2'\], is now \['0'\]"):
        call(maximize_activation.main, *few, "--data.classes", "[0]")


JUDGE = "{network: vgg16, weights: shapes, input_size: 64, name: other}"


@pytest.fixture
def judged(shapes: Path, tmp_path: Path) -> list[str]:
    """Options of a run of two classes and a channel, with a judge and a few photos."""
    for k, photo in enumerate(sorted((shapes / "val").glob("*/*"))[::10]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / f"photos/{k}.png").write_bytes(photo.read_bytes())
    (tmp_path / "photos/broken.png").touch()
    return [
        *("--data.classes", "[0, 1, 'features.28:3']", "--data.batch_size", "1", "--model.judges", f"[{JUDGE}]"),
        *("--data.exemplars", "photos", "--data.num_workers", "0", "--model.n_figures", "0", "--model.steps", "2"),
    ]


@pytest.mark.slow
def test_judges_and_exemplars_of_two_processes(judged: list[str], tmp_path: Path) -> None:
    results = {}
    for world in (1, 2):
        out = tmp_path / f"of_{world}"
        result = run(out, *judged, "--trainer.devices", str(world), "--out", out.name, world=world)
        assert result.returncode == 0, result.stderr
        results[world] = read_rows(out / "results").drop_columns(list(MEASURED)), read_exemplars(out / "exemplars")
    assert results[1] == results[2]
    assert len(results[1][1]) == 3 * 6
    assert [row["judge.other.rank"] is None for row in results[1][0].to_pylist()] == [False, False, True]


@pytest.mark.filterwarnings("ignore:model.judges", "ignore:1 of the 9 photos")
def test_judges_and_exemplars_of_a_continued_run(judged: list[str], call: Callable, tmp_path: Path) -> None:
    options = [*judged, "--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
    out = tmp_path / "run"
    call(maximize_activation.main, *options, "--trainer.limit_test_batches", 1)
    photos = {path: path.stat().st_mtime_ns for path in (out / "exemplars").iterdir()}
    call(maximize_activation.main, *options)
    assert {path: path.stat().st_mtime_ns for path in (out / "exemplars").iterdir()} == photos
    assert len(read_rows(out / "results")) == 3
    produced_by = json.loads((out / "summary.json").read_text())["produced_by"]
    failed = [["broken.png", "the file is empty"]]
    assert produced_by["exemplars"] == {
        "n_photos": 9, "n_failed": 1, "failed": failed, "n_unturned": 0, "notes": [],
    }  # fmt: skip
    assert produced_by["judge.other"]["input_size"] == 64
    assert list(produced_by["helpers_sha256"]) == ["judge.other"]
    (tmp_path / "photos/more.png").touch()
    with pytest.raises(RunError, match=r"data\.photos\.n_images was 9, is now 10"):
        call(maximize_activation.main, *options)
    with pytest.raises(RunError, match=r"model\.judges was .*name: other|model\.judges was .*'other'"):
        call(maximize_activation.main, *options, "--model.judges", "[{network: vgg16, weights: shapes}]")


def test_rows_of_an_older_version_are_not_added_to(call: Callable, tmp_path: Path) -> None:
    options = ("--model.weights", "shapes", "--model.steps", 1, "--model.n_figures", 0, "--trainer.accelerator", "cpu")
    call(
        maximize_activation.main, *options, "--data.classes", "[0, 1]", "--trainer.limit_test_batches", 1, "--out", "r"
    )
    (part,) = (tmp_path / "r/results").iterdir()
    before = read_rows(tmp_path / "r/results")
    pq.write_table(before.drop_columns(["clipped"]), part.with_name(part_name(0)))
    part.unlink()
    with pytest.raises(InputError, match=r"r/results were written by another version: they lack clipped\. Give"):
        call(maximize_activation.main, *options, "--data.classes", "[0, 1]", "--out", "r")
    assert len(read_rows(tmp_path / "r/results")) == len(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data.classes", "[heat]"), r"'heat', which is no class of the network. Did you mean one of: heart\?"),
        (("--data.classes", "features.99:0"), "'features.99', which the network does not have; it has features.0, "),
        (("--model.steps", "0"), "model.steps must be at least 1, got 0."),
        (("--data.exemplars", "nowhere"), "data.exemplars: The image folder nowhere does not exist."),
        (("--data.n_exemplars", "0"), "data.n_exemplars must be 1 to 12, got 0."),
        (("--model.judges", "[efficientnet_lite0]"), "model.judges: efficientnet_lite0 has no class called 'arrow' or"),
    ],
)
def test_bad_input(call: Callable, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    with pytest.raises((DataError, InputError), match=message):
        call(maximize_activation.main, *COMMON, *options)
    assert not (tmp_path / "run").exists()
