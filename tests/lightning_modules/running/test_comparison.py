"""Runs compared on the command line: folders as runs leave them, written without running anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules.errors import InputError
from lightning_modules.figures.saving import figure_name, save_figure
from lightning_modules.results.report import Report
from lightning_modules.results.storage import write_part
from lightning_modules.running import RunError, run_comparison
from lightning_modules.running.folder.run_folder import FORMAT

SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string())
            for name in ("path", "status", "error", "label_name", "prediction_name", "method")
        ),
        *(pa.field(name, pa.int64()) for name in ("label", "prediction", "target")),
        *(pa.field(name, pa.bool_()) for name in ("top1", "degenerate")),
        *(pa.field(name, pa.float64()) for name in ("insertion", "deletion")),
        pa.field("insertion_curve", pa.list_(pa.float32())),
    ]
)
PATHS = [f"cats/{k}.png" for k in range(4)]
SESSION = {"began": 0, "command": "python ...", "format": FORMAT, "ended": 3}
METRIC = "lightning_modules.metrics.InsertionDeletion"


@pytest.fixture
def write_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes the folder of an attribution run that has come to its end."""
    monkeypatch.chdir(tmp_path)

    def write_run(
        name: str,
        insertion: Sequence[float],
        n_figures: int = 2,
        metric: Mapping[str, Any] | None = None,
        sizes: str = "same",
        weights: str = "shapes",
    ) -> Path:
        run = tmp_path / name
        rows = [
            {"path": path, "status": "ok", "label": 0, "label_name": "cat", "prediction": 0, "prediction_name": "cat"}
            | {"method": method, "target": 0, "top1": value > 0.3, "degenerate": False, "insertion_curve": [0.1, 0.2]}
            | {"insertion": value, "deletion": 1 - value if method == "IG" else 0.5}
            for path, value in zip(PATHS, insertion)
            for method in ("CAM", "IG")
        ]
        write_part(run / "results/part-1-0000.parquet", rows, SCHEMA)
        for k, path in enumerate(PATHS[:n_figures]):
            figure = Figure((4, 2), dpi=50)
            figure.suptitle(path)
            save_figure(figure, run / "figures", figure_name(k, path))
        metrics = [{"class_path": METRIC, "init_args": {"step": None, "max_batch": 64, **(metric or {})}}]
        settings = {"model": {"network": "vgg16", "weights": weights, "metrics": metrics}, "data": {"root": "photos"}}
        inputs = {"weights_sha256": name, "data": {"n_images": 4, "sha256": "same", "sizes_sha256": sizes}}
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
        (run / "inputs.json").write_text(json.dumps(inputs))
        (run / "sessions.json").write_text(json.dumps([SESSION]))
        (run / "summary.json").write_text(json.dumps({"n_images": 4, "produced_by": {"network": {"n_classes": 2}}}))
        Report(legend="Above, its map alone.").save(run)
        return run

    return write_run


@pytest.fixture
def a(write_run: Callable[..., Path]) -> Path:
    return write_run("a", [0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def b(write_run: Callable[..., Path]) -> Path:
    return write_run("b", [0.2, 0.9, 0.5, 0.4], weights="tuned.pth")


def compare(*words: object) -> None:
    assert run_comparison(description="Compares runs.\n\nMore.", args=[str(word) for word in words]) == 0


def test_what_is_left_in_out(a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare("a", "b", "--out", "out", "--score", "insertion", "--n_images", 3)
    printed = capsys.readouterr().out
    assert "b compared with a" in printed
    assert "Settings that differ between a and b: model.weights is shapes and tuned.pth." in printed
    assert "Of the 3 images that changed most, 1 has no figure to be shown: a run draws those of its first" in printed
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    (cam,) = [of for of in summary["comparisons"]["b"]["scores"] if (of["score"], of["group"]) == ("insertion", "CAM")]
    assert cam["difference"] == pytest.approx((0.1 + 0.7 + 0.2 + 0) / 4)
    assert summary["produced_by"]["runs"] == [str(a), str(b)]
    # The image that changed most comes first; the second has a figure in neither run.
    assert sorted(path.name for path in (out / "figures").glob("*.png")) == [
        "00000_cats_1.png",
        "00001_cats_0.png",
        "differences.png",
    ]
    with Image.open(out / "figures/00000_cats_1.png") as picture:
        assert picture.height > 2 * 100  # both runs' pixels, one below the other
        assert picture.info["Description"] == "insertion of CAM: 0.200 in a, 0.900 in b (+0.700); a; b"
    page = (out / "index.html").read_text()
    for text in ("Compares runs.", "Above, its map alone.", "McNemar", "b compared with a", "model.weights"):
        assert text in page
    board = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert board.Scalars("3_scores/difference_insertion/CAM/b")[0].value == pytest.approx(0.25)
    assert {"1_whole_run/differences", "5_images/00000_cats_1", "5_images/00001_cats_0"} == set(board.Tags()["images"])


@pytest.mark.slow
def test_the_same_again_and_other_runs_into_the_same_folder(a: Path, b: Path, write_run: Callable[..., Path]) -> None:
    write_run("c", [0.5] * 4)
    compare("a", "b", "--n_images", 0, "--out", "out")
    before = Path("out/summary.json").read_text()
    compare("a", "b", "--n_images", 0, "--out", "out")
    assert Path("out/summary.json").read_text() == before
    with pytest.raises(
        RunError, match=r"out holds a run of other settings: runs was \['a', 'b'\], is now \['a', 'c'\]"
    ):
        compare("a", "c", "--n_images", 0, "--out", "out")
    assert Path("out/summary.json").read_text() == before
    compare("a", "c", "b", "--n_images", 0, "--out", "out", "--overwrite")
    assert list(json.loads(Path("out/summary.json").read_text())["comparisons"]) == ["c", "b"]
    with pytest.raises(RunError, match="--out b holds the rows of another run"):
        compare("a", "b", "--out", "b", "--overwrite")
    assert Path("b/results").exists()
    with pytest.raises(RunError, match="out is no RUN with rows"):
        compare("a", "out")


def test_two_methods_of_one_run(a: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare("a", "--methods", "CAM", "IG", "--score", "deletion", "--n_images", 1, "--out", "out")
    printed = capsys.readouterr().out
    assert "IG compared with CAM" in printed
    assert "top-1" not in printed  # it is the same
    assert "cats/0.png" in printed  # 0.5 and 0.9
    with Image.open("out/figures/00000_cats_0.png") as picture:
        assert picture.height < 2 * 100  # the run's figure, once: it has both
    with pytest.raises(InputError, match="a has no rows of 'LIME', but those of CAM, IG"):
        compare("a", "--methods", "CAM", "LIME")


def test_two_methods_of_two_runs(a: Path, b: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare("a", "b", "--methods", "CAM", "IG")
    printed = capsys.readouterr().out
    assert "IG in b compared with CAM in a" in printed
    assert "top-1" in printed


def test_runs_of_the_same_name(a: Path, b: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    b.rename(tmp_path / "old/a")
    compare("a", "old/a")
    assert "old/a compared with a" in capsys.readouterr().out


def test_what_cannot_be_compared(a: Path, b: Path, write_run: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match="One RUN alone is compared with nothing: name another, or two of its --methods"):
        compare("a")
    with pytest.raises(RunError, match="A RUN is named twice"):
        compare("a", "b", "../" + a.parent.name + "/a")
    with pytest.raises(RunError, match="nowhere is no RUN with rows: name what an evaluation had as --out"):
        compare("a", "nowhere")
    write_run("resized", [0.5] * 4, sizes="other")
    with pytest.raises(
        RunError, match=r"a and .*resized are of other images: their names are the same, but not the siz"
    ):
        compare("a", "resized")
    write_run("coarse", [0.5] * 4, metric={"step": 3000})
    with pytest.raises(RunError, match=r"other options: model\.metrics InsertionDeletion: step is None and 3000"):
        compare("a", "coarse")
    write_run("slow", [0.5] * 4, metric={"max_batch": 1})
    compare("a", "slow")


def test_another_version(a: Path, b: Path) -> None:
    (b / "sessions.json").write_text(json.dumps([{**SESSION, "format": None}]))
    with pytest.raises(RunError, match="b holds a run of another version of VGG Lens"):
        compare("a", "b")


def test_unfinished(a: Path, b: Path) -> None:
    sessions = [SESSION, {name: value for name, value in SESSION.items() if name != "ended"}]
    (b / "sessions.json").write_text(json.dumps(sessions))
    with pytest.raises(RunError, match=r"The run in b has not come to its end\. Its command, typed again, goes on"):
        compare("a", "b")
    (a / "summary.json").unlink()
    with pytest.raises(RunError, match="The run in a has not come to its end"):
        compare("a", "b")
