from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.figures.saving import save_figure
from lightning_modules.results.report import Report
from lightning_modules.results.storage import write_part
from lightning_modules.results.tables import Table

FIELDS = [
    *((name, pa.string()) for name in ("path", "status", "error", "image", "name", "variant", "prediction_name")),
    *(("seed", pa.int64()), ("probability", pa.float64())),
]


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the folder of a run that has come to its end, without running anything."""

    def write_run(
        name: str = "run",
        report: Report | None = None,
        n_panels: int = 2,
        images: tuple[str, ...] = (),
        failed: tuple[str, ...] = (),
        noise: int = 8,
    ) -> Path:
        run = tmp_path / name
        (run / "images").mkdir(parents=True)
        report = report or Report("Does something.", "3 images", [Table(["score", "GradCAM"], [["insertion", "0.5"]])])
        report.save(run)
        summary: dict[str, Any] = {"n_images": 3, "n_failed": len(failed), "produced_by": {"devices": ["a machine"]}}
        (run / "summary.json").write_text(json.dumps(summary))
        (run / "config.yaml").write_text("model:\n  network: vgg16\n  weights: shapes\n")
        scores = Figure((2, 1), dpi=50)
        scores.suptitle("All scores")
        save_figure(scores, run / "figures", "scores")
        random = np.random.default_rng(0)
        for k in range(n_panels):
            panel = Figure((2, 1), dpi=50)
            panel.suptitle(f"image {k}")
            panel.text(0.1, 0.5, f"label: cat   predicted: dog {k}")
            save_figure(panel, run / "figures", f"{k:05d}_image_{k}")
        rows = [{"path": path, "status": "failed", "error": "it is no image"} for path in failed]
        for k, image in enumerate(images):
            pixels = random.integers(0, 256, (noise, noise, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(run / "images" / f"{k}.png")
            row = {"path": f"{k}", "status": "ok", "image": f"{k}.png", "name": image, "prediction_name": image}
            rows.append(row | {"seed": 0, "variant": "both", "probability": 0.25})
        write_part(run / "results" / "part-1-0000.parquet", rows, pa.schema(FIELDS))
        return run

    return write_run
