from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.scripts.processes import complete

STRANGER = """
from lightning_modules import Attack

class Brighten(Attack):
    def __init__(self, share: float = 1.0) -> None:
        self.share = share

    def __call__(self, model, images, target, eps):
        return (images + self.share * eps).clamp(0, 1)
"""


def evaluate(folder: Path, root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in ``folder`` on the embedded model, into ``folder/run``."""
    args = ["--data.root", root, "--model.weights", "shapes", "--out", "run"]
    args += ["--trainer.accelerator", "cpu", "--data.num_workers", 0, "--data.batch_size", 4]
    return complete("evaluate_robustness", [*args, *options], folder)


@pytest.mark.slow
def test_a_strangers_attack_leaves_everything_and_is_continued(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "my_attack.py").write_text(STRANGER)
    options = ["--model.attack", "my_attack.Brighten", "--model.attack.share", "0.5", "--model.eps", "[4/255, 0.5]"]
    few = ["--model.n_figures", "1", "--trainer.limit_test_batches"]
    first = evaluate(tmp_path, shapes / "val", *options, *few, "1")
    assert first.returncode == 0, first.stderr
    again = evaluate(tmp_path, shapes / "val", *options, *few, "3")
    assert again.returncode == 0, again.stderr
    rows = pd.read_parquet(tmp_path / "run" / "results")
    assert rows.groupby("path")["eps"].apply(sorted).tolist() == [[0, 4 / 255, 0.5]] * 12
    assert rows.loc[rows["eps"] == 0.5, "linf"].max() == pytest.approx(0.25, abs=1e-6)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["n_images"] == 12
    assert summary["sweep"][0]["eps"] == 4 / 255
    assert "4/255" in again.stdout
    names = sorted(path.stem for path in (tmp_path / "run" / "figures").iterdir())
    assert [name[:5] for name in names] == ["00000", "accur"]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    groups = ["1_whole_run" if name == "accuracy_over_eps" else "5_images" for name in names]
    assert sorted(events.Tags()["images"]) == sorted(f"{group}/{name}" for group, name in zip(groups, names))
    refused = evaluate(tmp_path, shapes / "val", *options[:-1], "[2/255]", *few, "1")
    assert refused.returncode == 2
    assert "holds a run of other settings: model.eps was" in refused.stderr


@pytest.mark.slow
def test_errors_before_the_first_batch_and_the_corrected_command(shapes: Path, tmp_path: Path) -> None:
    flat = shapes / "val" / "star"
    refused = evaluate(tmp_path, flat)
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith("error: model.target is label, but some images have none")
    assert not (tmp_path / "run" / "results").exists()
    corrected = evaluate(tmp_path, flat, "--model.target", "predicted", "--model.n_figures", "0")
    assert corrected.returncode == 0, corrected.stderr
    wrong = evaluate(tmp_path, flat, "--model.eps", "[8]")
    assert wrong.returncode == 2
    assert "Did you mean 8/255?" in wrong.stderr
