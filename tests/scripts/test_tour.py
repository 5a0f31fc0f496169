from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scripts.conftest import ROOT, environment

TOUR = Path(__file__).parents[2] / "scripts/tour.py"


def test_the_tour(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(TOUR)], cwd=tmp_path, env=environment(ROOT), capture_output=True, text=True, timeout=250
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("crescent: 9")
    assert lines[5].startswith("after FGSM, eps 4/255: ")
    assert lines[6].startswith("synthetic crescent: 9") or lines[6].startswith("synthetic crescent: 100")
    for name in ("maps", "original", "adversarial", "synthetic"):
        assert np.asarray(Image.open(tmp_path / f"runs/tour/{name}.png").convert("RGB")).std() > 10
    original, adversarial = (
        np.asarray(Image.open(tmp_path / f"runs/tour/{name}.png")).astype(int) for name in ("original", "adversarial")
    )
    assert np.abs(original - adversarial).max() in (4, 5)


def as_a_script(code: str) -> None:
    try:
        exec(code, {})
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]


def test_it_ends_in_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """At a slip in its first lines, and at Ctrl-C."""
    code = TOUR.read_text()
    (before, after), of_image = code.split("network = load_network"), 'IMAGE = "shapes", None'
    slip = before.replace(of_image, 'IMAGE = "shapes", "nowhere.jpg"') + "network = load_network" + after
    stop = before + "raise KeyboardInterrupt"
    for code, exit_code, told in (
        (slip, 2, r"error: nowhere\.jpg: No such file or directory\n"),
        (slip.replace("runs/tour", "/proc/tour").replace('"nowhere.jpg"', "None"), 2, r"error: .*'/proc/tour.*\n"),
        (stop, 130, r"stopped by SIGINT\.\n"),
    ):
        process = multiprocessing.get_context("fork").Process(target=as_a_script, args=(code,))
        process.start()
        process.join()
        assert process.exitcode == exit_code
        assert re.fullmatch(told, capfd.readouterr().err)


def test_it_is_short_and_in_cells() -> None:
    lines = TOUR.read_text().splitlines()
    assert len(lines) < 60
    assert sum(line.startswith("# %%") for line in lines) >= 6
    assert "Trainer" not in "\n".join(line for line in lines if not line.startswith("#"))
