from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

from lightning_modules import load_network
from lightning_modules.evaluation import EvaluationModule, Outputs
from lightning_modules.results.report import Report
from lightning_modules.results.storage import read_rows
from lightning_modules.running import RunWriter
from lightning_modules.running.folder import writer

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:GPU available")


class Counting(EvaluationModule):
    """Makes a row, a figure and an image of each number; the number ``fails_at`` is an error."""

    def __init__(self, fails_at: int = -1) -> None:
        super().__init__(load_network("vgg16", "shapes"), n_figures=1)
        self.fails_at = fails_at
        self.reported: list[dict[str, Any]] = []

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([pa.field("path", pa.string()), pa.field("value", pa.float64())])

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Outputs:  # type: ignore[override]
        if batch_idx == self.fails_at:
            raise RuntimeError("broken")
        return self.evaluate(batch)

    def evaluate(self, batch: dict[str, Any]) -> Outputs:  # type: ignore[override]
        pixels = {f"{path}.png": np.zeros((4, 4, 3), np.uint8) for path in batch["path"]}
        rows = [{"path": path, "value": float(i)} for path, i in zip(batch["path"], batch["index"])]
        return {"rows": rows, "figures": {0: Figure((1, 1))}, "images": pixels}

    def summarize(self, table: pa.Table) -> dict[str, Any]:
        return {"n_images": len(table), "n_failed": 0, "paths": table["path"].to_pylist()}

    def report(self, summary: dict[str, Any]) -> Report:
        self.reported.append(summary)
        return Report(scalars={"2_summary/n_images": summary["n_images"]})

    def run_figures(self, summary: dict[str, Any], run: Path) -> Iterator[tuple[str, Figure]]:
        yield f"of {len(list((run / 'images').iterdir()))} images", Figure((1, 1))


def run_of(module: Counting, run: Path, n: int = 4) -> RunWriter:
    """Tests batches of one number each."""
    batches = [{"path": [f"{k}"], "index": torch.tensor([k])} for k in range(n)]
    callback = RunWriter(run)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[callback],
    )
    trainer.test(module, DataLoader(batches, batch_size=None), verbose=False)  # type: ignore[arg-type]
    return callback


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files as they take them."""
    names: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda aside, path: (names.append(path.parent.name), replace(aside, path))[1])
    return names


def test_a_row_comes_after_what_it_says_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    monkeypatch.setattr(writer, "ROWS_PER_PART", 1)
    callback = run_of(Counting(), tmp_path / "run", n=2)
    assert written == ["images", "figures", "results"] * 2 + ["figures"]
    assert callback.summary == {"n_listed": None, "n_images": 2, "n_failed": 0, "paths": ["0", "1"]}
    assert {path.name for path in (tmp_path / "run/figures").iterdir()} == {
        "00000_0.png", "00001_1.png", "of 2 images.png"
    }  # fmt: skip


def broken() -> Figure:
    raise ValueError("no such colour")


def test_what_cannot_be_drawn_names_its_image(tmp_path: Path) -> None:
    class Broken(Counting):
        def test_step(self, batch: dict[str, Any], batch_idx: int) -> Outputs:
            return super().test_step(batch, batch_idx) | {"figures": {0: broken} if batch_idx == 1 else {}}

    with pytest.raises(RuntimeError, match=r"figure of 1 cannot be drawn: ValueError: no such colour"):
        run_of(Broken(), tmp_path / "run")
    assert read_rows(tmp_path / "run/results")["path"].to_pylist() == ["0"]


def test_parts_by_size_and_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(Counting(), tmp_path / "one")
    monkeypatch.setattr(writer, "ROWS_PER_PART", 3)
    run_of(Counting(), tmp_path / "two")
    monkeypatch.setattr(Counting, "seconds_per_part", -1.0)
    run_of(Counting(), tmp_path / "four")
    for n, name in enumerate(("one", "two", "four")):
        assert len(list((tmp_path / name / "results").iterdir())) == 2**n
        assert read_rows(tmp_path / name / "results")["path"].to_pylist() == ["0", "1", "2", "3"]


def test_what_is_computed_before_an_error_is_written(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        run_of(Counting(fails_at=2), tmp_path / "run")
    assert read_rows(tmp_path / "run/results")["path"].to_pylist() == ["0", "1"]


def test_where_the_disk_is_full_the_first_error_is_told(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "results").touch()  # no part can be written
    with pytest.raises(RuntimeError, match="broken"):
        run_of(Counting(fails_at=1), run)


def test_nothing_is_summarized_where_there_are_no_rows(tmp_path: Path) -> None:
    callback = run_of(Counting(), tmp_path / "run", n=0)
    assert callback.summary is None
    assert not (tmp_path / "run/figures").exists()
