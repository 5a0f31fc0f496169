"""What the README tells to write and to type, written and typed; but for data, weights and the size of the work."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evaluate_attribution
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_modules.results.rows import read_rows

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
# A block of Python that names its file, and the command that follows it.
EXTENSIONS = re.findall(r"```python\n# (my_\w+)\.py\n(.*?)```\n+(?:.*?\n)??```\n(python .*?)```", README, re.DOTALL)
CONFIGS = sorted((ROOT / "scripts").glob("*.yaml"))


@pytest.fixture
def photos_folder(shapes: Path, tmp_path: Path) -> Path:
    (tmp_path / "photos").symlink_to(shapes / "val")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


def type_in(call: Callable, command: str, *options: object) -> Path:
    """Calls what a command of the README calls; returns its RUN."""
    python, script, *words = shlex.split(command.replace("\\\n", " "))
    assert python == "python"
    call(importlib.import_module(Path(script).stem).main, *words, "--trainer.accelerator", "cpu", *options)
    return Path(words[words.index("--out") + 1])


def test_all_four_and_a_network_are_there() -> None:
    assert [name for name, _, _ in EXTENSIONS] == ["my_methods", "my_metrics", "my_attacks", "my_objectives", "my_file"]


@pytest.mark.parametrize(("name", "code", "command"), EXTENSIONS, ids=[name for name, _, _ in EXTENSIONS])
def test_an_extension(call: Callable, photos_folder: Path, name: str, code: str, command: str) -> None:
    assert len(code.splitlines()) < 20
    (photos_folder / f"{name}.py").write_text(code)
    few: list[Any] = ["--trainer.limit_test_batches", 1, "--trainer.enable_progress_bar", "false"]
    if name != "my_file":
        few += ["--model.weights", "shapes"]
    few += ["--model.steps", 12] if "maximize" in command else ["--data.batch_size", 4, "--data.num_workers", 0]
    out = type_in(call, command, *few)
    rows = read_rows(photos_folder / out / "results").to_pandas()
    assert (rows["status"] == "ok").all()
    summary = json.loads((photos_folder / out / "summary.json").read_text())
    if name == "my_methods":
        assert set(rows["method"]) == {"GradCAM", "InputTimesGradient(power=2.0)"}
        assert not rows["degenerate"].any()
    if name == "my_metrics":
        assert rows["sparseness"].between(0.2, 1).all()
        assert summary["methods"]["GradCAM"]["scores"]["sparseness"]["n"] == 4
    if name == "my_attacks":
        assert rows.groupby("eps")["linf"].max().tolist() == pytest.approx([0, 16 / 255, 64 / 255], abs=1e-6)
    if name == "my_objectives":
        assert (rows["name"].tolist(), rows["status"].tolist()) == (["circle"], ["ok"])
        board = EventAccumulator(str(photos_folder / out / "tensorboard")).Reload()
        growth = [point.value for point in board.Scalars("4_curves_over_steps/activation/0001_circle_seed0")]
        assert growth[-1] > growth[0] + 1
    if name == "my_file":
        assert len(rows) == 4 * 4
        assert (
            rows["prediction_name"]
            .isin(["arrow", "circle", "crescent", "cross", "heart", "ring", "square", "star"])
            .all()
        )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_configuration(
    call: Callable, photos_folder: Path, shapes: Path, capsys: pytest.CaptureFixture[str], config: Path
) -> None:
    """The command that stands in the file; what is printed and what the run leaves give the same again."""
    assert f"`scripts/{config.name}`" in README
    comment = "\n".join(line.removeprefix("# ") for line in config.read_text().splitlines() if line.startswith("#"))
    command = comment[comment.index("python ") :].replace("/data/imagenet/val", "photos")
    command = command.replace("/data/imagenet/boxes", str(shapes / "annotations/val"))
    few = ["--model.weights", "shapes", "--data.num_workers", 0, "--data.batch_size", 2, "--model.n_figures", 1]
    few += [
        "--trainer.limit_test_batches",
        1,
        "--trainer.precision",
        "32-true",
        "--trainer.enable_progress_bar",
        "false",
    ]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        type_in(call, command, *few, "--print_config")
    (photos_folder / "printed.yaml").write_text(capsys.readouterr().out)
    out = type_in(call, command, *few)
    rows = read_rows(photos_folder / out / "results").to_pandas()
    assert len(rows) == 2 * rows["method"].nunique()
    for file in ("printed.yaml", out / "config.yaml"):
        again = f"again_{Path(file).stem}"
        call(evaluate_attribution.main, "--config", file, "--out", again)
        pd.testing.assert_frame_equal(read_rows(photos_folder / again / "results").to_pandas(), rows)


def test_results_in_pandas_and_duckdb(call: Callable, photos_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    (command,) = re.findall(r"```\n(python .*quick_look\.yaml.*)\n```", README)
    type_in(call, command, "--model.weights", "shapes", "--trainer.limit_test_batches", 1, "--data.num_workers", 0)
    (code,) = re.findall(r"```python\n(import duckdb\n.*?)```", README, re.DOTALL)
    capsys.readouterr()
    exec(code, {})
    output = capsys.readouterr().out
    assert all(name in output for name in ("GradCAM", "GuidedBackprop", "average_drop", "prediction_name", "crescent"))
