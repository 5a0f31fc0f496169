"""--report: a run as one page."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate_attribution import main as evaluate_attribution
from evaluate_robustness import main as evaluate_robustness
from maximize_activation import main as maximize_activation
from report import main as report

from lightning_modules.running import RunError

pytestmark = pytest.mark.slow


@pytest.fixture
def options(shapes: Path) -> list[Any]:
    return [
        *("--data.root", shapes / "val", "--data.num_workers", 0, "--data.batch_size", 2, "--model.n_figures", 1),
        *("--model.weights", "shapes", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"),
    ]


def shown(run: Path) -> str:
    """The text of a page and its alternative texts, without the images."""
    page = re.sub(r'src="[^"]*"', "", (run / "index.html").read_text(encoding="utf-8"))
    return html.unescape(" ".join(page.split()))


def test_attribution(call: Callable, options: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options += ["--model.methods", "[GradCAM]", "--model.metrics", "[AverageDrop]", "--out", "run"]
    call(evaluate_attribution, *options, "--trainer.limit_test_batches", 1)
    assert not (tmp_path / "run/index.html").exists()
    assert "Hand it on" not in capsys.readouterr().out
    parts = list((tmp_path / "run/results").iterdir())
    # The same again, and the page: nothing is computed, and no setting is another one.
    call(evaluate_attribution, *options, "--trainer.limit_test_batches", 1, "--report")
    assert "Hand it on: run/index.html" in capsys.readouterr().out
    assert list((tmp_path / "run/results").iterdir()) == parts
    page = shown(tmp_path / "run")
    assert "2 of 80 images" in page
    assert "A limit (--trainer.limit_test_batches) left out 78 of 80 images." in page
    for text in ("average_drop", "Computes attribution maps", "arrow/arrow_00000.JPEG", "SHA-256"):
        assert text in page, text
    assert "maps explain: arrow" in page
    # What made the rows is told, not what wrote the page.
    assert "python script \\ --data.root" in page
    assert "--report" not in page
    # A page that is there is kept true.
    call(evaluate_attribution, *options, "--trainer.limit_test_batches", 2)
    page = shown(tmp_path / "run")
    assert "4 of 80 images" in page
    assert page.count("python script \\") == 2
    with pytest.raises(RunError, match="methods"):
        call(evaluate_attribution, *options, "--model.methods", "[Saliency]", "--report")
    assert shown(tmp_path / "run") == page


def test_robustness(call: Callable, options: list, tmp_path: Path) -> None:
    few = ["--model.eps", "[2/255]", "--trainer.limit_test_batches", 1, "--out", "run", "--report"]
    call(evaluate_robustness, *options, *few)
    page = shown(tmp_path / "run")
    assert "FGSM away from arrow, eps 2/255" in page
    assert "Median smallest eps that fools an image" in page
    assert "what the attack adds to it" in page
    before = (tmp_path / "run/index.html").stat().st_mtime_ns
    call(evaluate_robustness, *options, *few, "--overwrite")
    assert (tmp_path / "run/index.html").stat().st_mtime_ns > before


def test_the_page_of_a_run_that_was_moved(
    call: Callable, options: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options += ["--model.methods", "[GradCAM]", "--model.metrics", "[]", "--trainer.limit_test_batches", 1]
    call(evaluate_attribution, *options, "--out", "run", "--report")
    page = shown(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "moved/index.html").unlink()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "moved").rglob("*") if path.is_file()}
    assert call(report, "moved") == 0
    assert "Hand it on: moved/index.html" in capsys.readouterr().out
    assert shown(tmp_path / "moved") == page.replace("<title>run", "<title>moved").replace("<h1>run", "<h1>moved")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    call(evaluate_attribution, "--config", "moved/config.yaml", "--out", "moved")
    assert "every image that the limit lets through has its rows" in capsys.readouterr().out
    for folder, said in (("nowhere", "is no RUN"), (options[1], "is no RUN")):
        with pytest.raises(RunError, match=said):
            call(report, folder)
    (tmp_path / "moved/summary.json").unlink()
    with pytest.raises(RunError, match="has not come to its end"):
        call(report, "moved")


def test_maximization(call: Callable, tmp_path: Path) -> None:
    options = [
        "--model.weights",
        "shapes",
        "--data.classes",
        "[star, ring]",
        "--model.steps",
        4,
        "--model.n_figures",
        1,
    ]
    call(maximize_activation, *options, "--trainer.accelerator", "cpu", "--out", "run", "--report")
    page = shown(tmp_path / "run")
    assert page.index("ring: The network says") < page.index("star: The network says")
    assert "contact_sheet" not in page
    assert page.count("<img") == 3
