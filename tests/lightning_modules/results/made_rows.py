"""Rows made by hand."""

from __future__ import annotations

import pyarrow as pa

from lightning_modules.results.rows import IMAGE_FIELDS

SCHEMA = pa.schema([*IMAGE_FIELDS, pa.field("target", pa.int64()), pa.field("method", pa.string())]).append(
    pa.field("score", pa.float64())
)


def rows(path: str, label: int, prediction: int, *scores: float | None) -> list[dict]:
    image = {"path": path, "status": "ok", "label": label, "prediction": prediction, "probability": 0.5}
    if label >= 0:
        image |= {"top1": label == prediction, "top5": True}
    return [{**image, "method": f"Method{k}", "score": score} for k, score in enumerate(scores)]


def failed(path: str) -> list[dict]:
    return [{"path": path, "status": "failed", "error": "the file is empty"}]
