"""A result does not depend on how the work was split: over processes, batches, workers and nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lightning_modules.results.storage import read_rows
from lightning_modules.results.summaries.synthesis import MEASURED

from .processes import Run

N_IMAGES = 13  # divides by nothing
SMOOTH = "{class_path: SmoothGrad, init_args: {n_samples: 2}}"
OPTIONS: dict[str, list[object]] = {
    "evaluate_attribution": [
        *("--model.methods", f"[GradCAM, GuidedBackprop, {SMOOTH}]", "--model.target", "label"),
        *("--model.metrics", "[EnergyInBox, AverageDrop]", "--model.n_figures", 0),
    ],
    "evaluate_robustness": ["--model.eps", "[1/255, 8/255]", "--model.n_figures", 0],
    "maximize_activation": ["--data.classes", "[star, ring, 0]", "--model.steps", 2, "--model.n_figures", 0],
}


@pytest.fixture(scope="module")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name 13 images of all classes, and their boxes."""
    folder = tmp_path_factory.mktemp("images")
    for k, path in enumerate(sorted((shapes / "val").glob("*/*"))):
        if k % 6 == 0 and k < 78:
            (folder / path.parent.name).mkdir(exist_ok=True)
            shutil.copy(path, folder / path.parent.name)
    return ["--data.root", folder, "--data.boxes", shapes / "annotations/val"]


@pytest.fixture(scope="module")
def result(data: list[object], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[pd.DataFrame, Any]]:
    """Runs an evaluation, split in a certain way; returns its rows and summary."""
    known: dict[tuple[object, ...], tuple[pd.DataFrame, Any]] = {}

    def result(script: str, world: int, batch_size: int, workers: int) -> tuple[pd.DataFrame, Any]:
        split = (script, world, batch_size, workers)
        if split not in known:
            folder = tmp_path_factory.mktemp("run")
            args = [*OPTIONS[script], "--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
            args += ["--data.batch_size", batch_size, "--trainer.devices", world]
            if script != "maximize_activation":
                shown = data if script == "evaluate_attribution" else data[:2]
                args += [*shown, "--data.num_workers", workers]
            run = Run(script, args, folder, world)
            assert run.wait() == [0] * world, run.output()
            known[split] = outcome(folder / "run")
        return known[split]

    return result


def outcome(run: Path) -> tuple[pd.DataFrame, Any]:
    summary = json.loads((run / "summary.json").read_text())
    del summary["produced_by"]
    for variant in summary.get("variants", {}).values():
        for name in MEASURED:
            del variant[name]
    return read_rows(run / "results").to_pandas().drop(columns=list(MEASURED), errors="ignore"), summary


def assert_same(ours: tuple[pd.DataFrame, Any], theirs: tuple[pd.DataFrame, Any], within: float = 1e-6) -> None:
    """Numbers to 1e-5 relative, or ``within`` of a score's range; what is counted, predicted or hit is identical."""
    pd.testing.assert_frame_equal(ours[0], theirs[0], rtol=1e-5, atol=within)
    assert_same_numbers(ours[1], theirs[1], within)


def assert_same_numbers(ours: Any, theirs: Any, within: float) -> None:
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert_same_numbers(value, theirs[name], within)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs):
            assert_same_numbers(a, b, within)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=within)
    else:
        assert ours == theirs


# Each number of processes, of images in a batch and of workers with one or two others.
SPLITS = [(1, 1, 2), (2, 7, 2), (2, 32, 0), (4, 1, 0)]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "batch_size", "workers"), SPLITS)
def test_attribution(world: int, batch_size: int, workers: int, result: Callable) -> None:
    whole = result("evaluate_attribution", 1, 32, 0)
    assert len(whole[0]) == 3 * N_IMAGES
    assert whole[0]["energy_in_box"].notna().all()
    assert_same(result("evaluate_attribution", world, batch_size, workers), whole)


@pytest.mark.slow
def test_fewer_images_than_processes(data: list[object], tmp_path: Path) -> None:
    """Two of four processes have nothing to do, and wait for nobody."""
    (tmp_path / "few/star").mkdir(parents=True)
    for path in sorted(Path(str(data[1])).glob("*/*"))[:2]:
        shutil.copy(path, tmp_path / "few/star")
    args = ["--data.root", "few", "--model.weights", "shapes", "--model.methods", "[GradCAM]", "--data.num_workers", 0]
    run = Run("evaluate_attribution", [*args, "--trainer.devices", 4, "--out", "run"], tmp_path, world=4)
    assert run.wait() == [0] * 4, run.output()
    assert len(outcome(tmp_path / "run")[0]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("world", "batch_size", "workers"), [(1, 1, 2), (2, 7, 0)])
def test_robustness(world: int, batch_size: int, workers: int, result: Callable) -> None:
    """Under an attack but for the pixels whose gradient is 0 up to rounding, which may move the other way."""
    whole = result("evaluate_robustness", 1, 32, 0)
    assert len(whole[0]) == 3 * N_IMAGES
    split = result("evaluate_robustness", world, batch_size, workers)
    clean, attacked = (
        [(rows[(rows["eps"] == 0) == is_clean], {}) for rows, _ in (split, whole)] for is_clean in (1, 0)
    )
    assert_same(*clean)
    assert_same(*attacked, within=5e-3)
    assert_same_numbers(split[1], whole[1], within=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("world", "batch_size"), [(1, 1), (4, 1)])
def test_maximization(world: int, batch_size: int, result: Callable) -> None:
    """Of three images; four processes are more than there are images."""
    whole = result("maximize_activation", 1, 32, 0)
    assert len(whole[0]) == 3
    assert_same(result("maximize_activation", world, batch_size, 0), whole)


@pytest.mark.slow
def test_two_nodes(data: list[object], result: Callable, tmp_path: Path) -> None:
    """As on a cluster: a process on each of two nodes, as torchrun starts them, which write into one RUN."""
    args = [*OPTIONS["evaluate_attribution"], *data, "--data.batch_size", 7, "--data.num_workers", 0]
    args += ["--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
    run = Run("evaluate_attribution", [*args, "--trainer.num_nodes", 2, "--trainer.devices", 1], tmp_path, 2, nodes=2)
    assert run.wait() == [0, 0], run.output()
    assert_same(outcome(tmp_path / "run"), result("evaluate_attribution", 1, 32, 0))
    assert len({part.name.split("-")[2] for part in (tmp_path / "run/results").iterdir()}) == 2
    assert len(json.loads((tmp_path / "run/summary.json").read_text())["produced_by"]["devices"]) == 2
