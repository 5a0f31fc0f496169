"""Runs that were made, compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from compare_runs import main as compare_runs
from evaluate_robustness import main as evaluate_robustness

from lightning_modules.results.storage import read_rows


@pytest.mark.slow
def test_two_attacks(call: Callable, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        *("--data.root", shapes / "val", "--data.num_workers", 0, "--data.batch_size", 4, "--model.n_figures", 1),
        *("--model.weights", "shapes", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
        *("--trainer.limit_test_batches", 1, "--model.eps", "[8/255]", "--model.methods", "[]"),
    ]
    call(evaluate_robustness, *options, "--out", "fgsm")
    call(evaluate_robustness, *options, "--model.attack", "PGD", "--model.attack.n_steps", 2, "--out", "pgd")
    capsys.readouterr()
    call(compare_runs, "fgsm", "pgd", "--out", "compared", "--n_images", 2)
    assert "model.attack" in capsys.readouterr().out
    fgsm, pgd = (read_rows(tmp_path / name / "results").to_pandas() for name in ("fgsm", "pgd"))
    rows = pd.merge(fgsm, pgd, on=["path", "eps"])
    summary = json.loads((tmp_path / "compared/summary.json").read_text())
    assert summary["n_images"] == 4
    for score in summary["comparisons"]["pgd"]["scores"]:
        if score["score"] in ("top1", "probability_label"):
            at = rows[rows["eps"].map(lambda eps: f"{round(eps * 255)}/255" if eps else "0") == score["group"]]
            difference = at[f"{score['score']}_y"].astype(float) - at[f"{score['score']}_x"].astype(float)
            assert score["difference"] == pytest.approx(difference.mean())
    assert (tmp_path / "compared/figures/differences.png").exists()
