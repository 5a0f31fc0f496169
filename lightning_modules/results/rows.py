"""The table of a run: rows for each image, in Parquet parts that are never rewritten."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_modules.errors import InputError
from lightning_modules.gradients.forward_pass import ForwardPass

IMAGE_FIELDS = [
    pa.field("path", pa.string()),
    pa.field("status", pa.string()),
    pa.field("error", pa.string()),
    pa.field("label", pa.int64()),
    pa.field("label_name", pa.string()),
    pa.field("prediction", pa.int64()),
    pa.field("prediction_name", pa.string()),
    pa.field("probability", pa.float64()),
    pa.field("top1", pa.bool_()),
    pa.field("top5", pa.bool_()),
]
"""What every row says of its image. ``label`` is -1, and ``top1`` and ``top5`` are null, where it is unlabelled;
``top5`` is too where there are no more than five classes.

``error`` says why ``status`` is "failed", or what is wrong with the boxes of an image that is "ok".
"""


def image_columns(forward_pass: ForwardPass, batch: Mapping[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """What every row says of its image: a dict of the columns ``IMAGE_FIELDS`` for each image."""
    best = forward_pass.logits.topk(min(5, forward_pass.logits.shape[1])).indices.tolist()
    probabilities = forward_pass.probabilities.double().amax(1).tolist()
    return [
        {
            "path": path,
            "status": "ok",
            "error": error,
            "label": label,
            "label_name": names[label] if label >= 0 else None,
            "prediction": ranks[0],
            "prediction_name": names[ranks[0]],
            "probability": probability,
            "top1": ranks[0] == label if label >= 0 else None,
            "top5": label in ranks if label >= 0 and len(names) > 5 else None,
        }
        for path, error, label, ranks, probability in zip(
            batch["path"], batch["box_error"], batch["label"].tolist(), best, probabilities
        )
    ]


def failed_rows(batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of what a batch met and could not read: one for each (path, error) of ``failed``."""
    return [{"path": path, "status": "failed", "error": error} for path, error in batch["failed"]]


def part_name(rank: int) -> str:
    """The name of a new part: by the time, and the process that writes it."""
    return f"part-{time.time_ns()}-{rank:04d}.parquet"


def write_part(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Writes rows as a part, aside and then renamed, so that a part is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    with aside.open("wb") as file:
        pq.write_table(pa.table(columns, schema=schema), file)
        file.flush()
        os.fsync(file.fileno())  # before the name: a machine that loses power must not leave an empty part
    aside.replace(path)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a run, in the order of their paths, so that what is computed of them does not depend on the parts.

    Raises:
        InputError: If a part is damaged.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        return pa.table({name: [] for name in columns or ["path"]})
    table = pa.concat_tables([_read_part(part, columns) for part in parts])
    keys = [name for name in ("path", "method", "eps", "variant") if name in table.column_names]
    return table.sort_by([(name, "ascending") for name in keys])


def _read_part(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        # As a file of its own: in a folder named key=value, pyarrow would add a column.
        with pq.ParquetFile(path) as file:
            return file.read(columns)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it: the same command computes the images that it held again."
        ) from error


def done_paths(folder: Path) -> set[str]:
    """Paths of the images that have their rows already, the failed ones too."""
    return set(read_rows(folder, ["path"]).column("path").to_pylist())


def summarize_images(frame: pd.DataFrame) -> dict[str, Any]:
    """Counts of images and accuracy, from rows of which an image may have several.

    ``top1`` and ``top5`` are shares of the labelled images that did not fail, None where there is nothing to tell.
    """
    images = frame.drop_duplicates("path")
    good = images[images["status"] == "ok"]
    summary: dict[str, Any] = {
        "n_images": len(images),
        "n_failed": len(images) - len(good),
        "n_box_errors": int(good["error"].notna().sum()),
        "n_labelled": int((good["label"] >= 0).sum()),
    }
    for name in ("top1", "top5"):
        values = good[name].dropna()
        summary[name] = float(values.mean()) if len(values) else None
    return summary
