from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.scripts.conftest import ROOT, environment

# Python keeps one object for both orders of a union; without us, the first one made decides what an option is read as.
PROGRAM = """
import typing

typing.Optional[typing.Union[float, int]]
import sys

import evaluate_attribution

evaluate_attribution.main(sys.argv[1:])
"""


def test_a_limit_without_a_point_is_a_number_of_batches(tmp_path: Path) -> None:
    """1 is a batch, 1.0 all of them, whatever was imported first."""
    options = ["--data.root", ".", "--model.weights", "shapes", "--out", "run", "--print_config"]
    limits = ["--trainer.limit_test_batches", "1", "--trainer.limit_val_batches", "1.0"]
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *options, *limits],
        cwd=tmp_path,
        env=environment(ROOT, ROOT / "scripts"),
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "limit_test_batches: 1" in lines
    assert "limit_val_batches: 1.0" in lines
