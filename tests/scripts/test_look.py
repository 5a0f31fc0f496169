"""Figures of rows that were chosen after the run: the run's own maps and attacked images, or a sentence why not."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compare_runs
import evaluate_attribution
import evaluate_robustness
import look
import maximize_activation
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import ImageFolderDataModule
from lightning_modules import (
    AttributionModule,
    InputError,
    RobustnessModule,
    load_vgg16,
    read_adversarial,
    read_maps,
    save_vgg16,
)
from lightning_modules.figures.saving import pixels_of
from lightning_modules.results.storage import read_rows
from lightning_modules.running import RunError, run_look

pytestmark = pytest.mark.slow


@pytest.fixture
def images(shapes: Path, tmp_path: Path) -> Path:
    """Twelve images, as files whose sizes tell nothing of what they show; and one that is none."""
    folder = tmp_path / "images"
    for k, path in enumerate(sorted((shapes / "pairs").glob("*/*"))[:12]):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("RGB").save(folder / path.parent.name / f"{k}.bmp")
    (folder / path.parent.name / "broken.png").write_bytes(b"none")
    return folder


@pytest.fixture
def options(images: Path) -> list[Any]:
    common = ["--data.root", images, "--data.num_workers", 0, "--trainer.accelerator", "cpu", "--data.batch_size", 4]
    return [*common, "--model.weights", "shapes", "--model.n_figures", 1, "--trainer.enable_progress_bar", "false"]


def rows_of(run: Path) -> pd.DataFrame:
    return read_rows(run / "results").to_pandas()


class Explaining(AttributionModule):
    """Keeps what is drawn: of each image its maps and its prediction."""

    drawn: dict[str, tuple[dict[str, torch.Tensor], int]]

    def draw(self, forward_pass: Any, batch: Any, maps: Any, images: Any) -> Any:
        for i, path in enumerate(batch["path"]):
            own = {name: attribution[i] for name, attribution in maps.items()}
            self.drawn[path] = own, int(forward_pass.logits[i].argmax())
        return super().draw(forward_pass, batch, maps, images)


class Attacking(RobustnessModule):
    """The same of attacked images: the budget that is shown."""

    drawn: dict[str, tuple[float, torch.Tensor]]

    def draw_attacked(self, drawn: Any, shown: Any) -> Any:
        for i in shown:
            path = drawn.rows[i]["path"]
            eps = drawn.shown_eps[path]
            self.drawn[path] = eps, drawn.images[1 + drawn.eps.index(eps)][i]
        return super().draw_attacked(drawn, shown)


@pytest.mark.parametrize("are_kept", [True, False])
def test_maps_are_those_of_the_run(call: Callable, options: list, tmp_path: Path, are_kept: bool) -> None:
    methods = ["--model.methods", "[GradCAM, {class_path: SmoothGrad, init_args: {n_samples: 2}}]"]
    call(evaluate_attribution.main, *options, *methods, "--model.save_maps", "true", "--out", "run")
    run, rows = tmp_path / "run", rows_of(tmp_path / "run")
    stored = read_maps(run)
    kept = {path: stored.enlarged(path) for path in stored}
    if not are_kept:
        shutil.rmtree(run / "maps")
    Explaining.drawn = {}
    show = ["--where", "method == 'GradCAM' and status == 'ok'", "--sort", "-average_drop,path", "--n", 3]
    call(lambda args: run_look([(Explaining, ImageFolderDataModule)], description="", args=args), run, *show)
    expected = rows[rows["method"] == "GradCAM"].sort_values(["average_drop", "path"], ascending=[False, True])
    paths = expected["path"].head(3).tolist()
    assert list(Explaining.drawn) == sorted(paths)
    for path, (maps, prediction) in Explaining.drawn.items():
        assert maps.keys() == kept[path].keys()
        for name, attribution in maps.items():
            largest = float(kept[path][name].abs().max())
            torch.testing.assert_close(attribution, kept[path][name], rtol=2**-10, atol=2**-10 * largest)
        assert prediction == rows.loc[rows["path"] == path, "prediction"].iloc[0]
    (out,) = (run / "looks").iterdir()
    names = [file.name for file in sorted((out / "figures").glob("*.png"))]
    assert [name[6:].replace("_", "/", 1) for name in names] == [path.replace(".bmp", ".png") for path in paths]


def test_what_a_look_leaves(call: Callable, options: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(evaluate_attribution.main, *options, "--model.methods", "[GradCAM, Saliency]", "--out", "run")
    run = tmp_path / "run"
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    capsys.readouterr()
    call(look.main, "run", "--show", "worst", "average_drop", "--n", 2)
    printed = capsys.readouterr().out
    assert "24 of 25 rows fit, of 12 images; 2 of them are drawn" in printed
    after = {file: file.read_bytes() for file in before}
    assert after == before  # the run itself stays as it was
    summary = json.loads((run / "summary.json").read_text())
    worst = summary["extremes"]["average_drop"]["worst"]
    assert worst["draw"] == "python scripts/look.py run --show worst average_drop"
    found = json.loads((run / "looks/worst_average_drop/summary.json").read_text())
    assert found["images"] == list(dict.fromkeys(row["path"] for row in worst["rows"]))[:2]
    page = html.unescape((run / "index.html").read_text())
    assert "A look at worst average_drop (lower is better)" in page
    assert all(path in page for path in found["images"])
    board = EventAccumulator(str(run / "looks/worst_average_drop/tensorboard")).Reload()
    assert len(board.Tags()["images"]) == 2
    call(look.main, "run", "--show", "failed", "--name", "bad ones")
    assert "broken.png" in capsys.readouterr().out
    assert (run / "looks/bad_ones/report.json").exists()
    with pytest.raises(InputError, match="No row of run fits: where probability > 2"):
        call(look.main, "run", "--where", "probability > 2")
    call(evaluate_attribution.main, *options, "--model.methods", "[GradCAM]", "--out", "run", "--overwrite")
    assert not (run / "looks").exists()


def test_attacked_images_are_shown_under_the_budget_of_their_row(call: Callable, options: list, tmp_path: Path) -> None:
    attack = ["--model.eps", "[1/255, 8/255]", "--model.save_adversarial", "true", "--model.methods", "[GradCAM]"]
    call(evaluate_robustness.main, *options, *attack, "--out", "run")
    run = tmp_path / "run"
    images = read_adversarial(run)
    Attacking.drawn = {}
    classes: Any = [(AttributionModule, ImageFolderDataModule), (Attacking, ImageFolderDataModule)]
    for eps, name in ((1 / 255, "1/255"), (8 / 255, "8/255")):
        words = ["--where", f"eps == {eps!r} and status == 'ok'", "--n", 2, "--name", "at"]
        call(lambda args: run_look(classes, description="", args=args), run, *words)
        assert len(Attacking.drawn) == 2
        for path, (shown, pixels) in Attacking.drawn.items():
            assert shown == eps
            torch.testing.assert_close(pixels, images[path][name], rtol=0, atol=1e-6)


def test_made_images_and_comparisons(call: Callable, options: list, tmp_path: Path) -> None:
    made = ["--model.weights", "shapes", "--model.steps", 1, "--model.n_fresh", 1, "--trainer.accelerator", "cpu"]
    call(maximize_activation.main, *made, "--data.classes", "[star, ring]", "--model.n_figures", 0, "--out", "made")
    call(look.main, "made", "--sort", "-probability", "--n", 1, "--name", "first")
    best = rows_of(tmp_path / "made").sort_values("probability").iloc[-1]
    (shown,) = (tmp_path / "made/looks/first/figures").iterdir()
    assert (pixels_of(shown) == pixels_of(tmp_path / "made/images" / best["image"])).all()
    for target in ("both", "label"):
        call(
            evaluate_attribution.main,
            *options,
            "--model.methods",
            "[GradCAM]",
            "--model.target",
            target,
            "--out",
            target,
        )
    call(compare_runs.main, "both", "label", "--common", "--out", "compared")
    call(look.main, "compared", "--show", "changed", "average_drop", "--n", 2, "--name", "changed")
    figures = sorted((tmp_path / "compared/looks/changed/figures").glob("*.png"))
    assert len(figures) == 2
    single = sorted((tmp_path / "both/figures").glob("0*.png"))[0]
    assert pixels_of(figures[0]).shape[0] > 1.8 * pixels_of(single).shape[0]  # one above the other
    rows = [rows_of(tmp_path / name).set_index("path")["average_drop"] for name in ("both", "label")]
    changes = (rows[1] - rows[0]).abs().sort_values(ascending=False)
    first = json.loads((tmp_path / "compared/looks/changed/summary.json").read_text())["images"][0]
    assert changes[first] == changes.iloc[0] > 0


def test_other_images_and_weights_are_refused(call: Callable, options: list, images: Path, tmp_path: Path) -> None:
    save_vgg16(load_vgg16("shapes"), tmp_path / "mine.pth")
    options[options.index("shapes")] = tmp_path / "mine.pth"
    call(evaluate_attribution.main, *options, "--model.methods", "[GradCAM]", "--out", "run")
    file, other = sorted(images.rglob("*.bmp"))[:2]
    content = file.read_bytes()
    file.write_bytes(other.read_bytes())  # of as many bytes
    path = file.relative_to(images).as_posix()
    with pytest.raises(RunError, match=rf"{path} is not the image any more that run was made of: it has changed"):
        call(look.main, "run", "--where", f"path == '{path}'")
    assert not list((tmp_path / "run/looks").iterdir())
    file.write_bytes(content)
    network = load_vgg16("shapes")
    with torch.no_grad():
        network.layers["classifier.6"].bias += 1
    save_vgg16(network, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"weights_sha256 was .*compute the run again"):
        call(look.main, "run", "--show", "mistakes", "--where", "probability > 0")
