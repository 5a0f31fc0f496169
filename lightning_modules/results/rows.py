"""The columns that every row has: of its image, its file and the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from datamodules.batch import FILE_COLUMNS, Batch
from lightning_modules.results.storage import Row, Rows, codes_of

IMAGE_FIELDS = [
    pa.field("path", pa.string()),
    pa.field("status", pa.string()),
    pa.field("error", pa.string()),
    *(pa.field(name, kind) for name, kind in FILE_COLUMNS.items()),
    pa.field("label", pa.int64()),
    pa.field("label_name", pa.string()),
    pa.field("prediction", pa.int64()),
    pa.field("prediction_name", pa.string()),
    pa.field("probability", pa.float64()),
    pa.field("top1", pa.bool_()),
    pa.field("top5", pa.bool_()),
    pa.field("fingerprint", pa.int64()),
]
"""Columns of every row, of its image. ``label`` is -1, and ``top1`` and ``top5`` are null, where it is unlabelled;
``top5`` is too where there are no more than five classes.

``error`` says why ``status`` is "failed", or what is wrong with the boxes of an image that is "ok".

For the columns of the file see :data:`~datamodules.batch.FILE_COLUMNS`. ``fingerprint`` is the same for the same
pixels, whatever their path: such rows are of one image, see :func:`units_of`.
"""


class LogitStats(NamedTuple):
    """What rows need of the logits of N images, and of their labels; on the device, to be read with all else.

    Attributes:
        label: As the batch has it, long ``(N,)``.
        ranks: The most probable classes, at most five, the first first: long ``(N, 5)``.
        probability: Of the first, ``(N,)``.
        fault: Index in :data:`FAULTS` of what is wrong with the logits, int ``(N,)``.
        fingerprint: Of the images' pixels, long ``(N,)``.
    """

    label: Tensor
    ranks: Tensor
    probability: Tensor
    fault: Tensor
    fingerprint: Tensor


def logit_stats(logits: Tensor, batch: Batch, probabilities: Tensor | None = None) -> LogitStats:
    """What rows need of logits ``(N, n_classes)`` and of the labels of their batch."""
    best = logits.topk(min(5, logits.shape[1])).indices
    probabilities = logits.softmax(1) if probabilities is None else probabilities
    return LogitStats(batch["label"], best, probabilities.amax(1), faults_of(logits), fingerprints(batch["image"]))


def fingerprints(images: Tensor) -> Tensor:
    """A hash of each image's pixels in 8 bits, long ``(N,)``, at least 0; on their device.

    Args:
        images: In [0, 1], ``(N, 3, H, W)``.
    """
    number = torch.arange(1, images[0].numel() + 1, device=images.device)
    # Integers that wrap around have the same sum in any order.
    weights = number * 0x1E3779B97F4A7C15
    weights = (weights ^ (weights >> 29)) * 0x3F58476D1CE4E5B9
    weights = (weights ^ (weights >> 32)).view(images[0].shape)
    return ((images * 255).round().long() * weights).sum((1, 2, 3)) & (2**62 - 1)


def image_columns(stats: LogitStats, batch: Batch, names: Sequence[str]) -> list[Row]:
    """The columns ``IMAGE_FIELDS`` of each image.

    Where the logits are NaN or infinite there is no prediction: the image failed.

    Args:
        stats: See :func:`logit_stats`; on the host.
        batch: Where the images are from.
        names: Of the network's classes; each label is one, or -1.
    """
    rows: list[Row] = []
    for path, file_columns, box_error, fault, label, ranks, probability, fingerprint in zip(
        batch["path"],
        batch["file_columns"],
        batch["box_error"],
        (FAULTS[index] for index in stats.fault.tolist()),
        stats.label.tolist(),
        stats.ranks.tolist(),
        stats.probability.tolist(),
        stats.fingerprint.tolist(),
    ):
        row = {"path": path, **file_columns}
        row |= {"label": label, "label_name": names[label] if label >= 0 else None}
        if fault is not None:
            rows.append({**row, "status": "failed", "error": fault})
            continue
        rows.append(
            {
                **row,
                "status": "ok",
                "error": box_error,
                "prediction": ranks[0],
                "prediction_name": names[ranks[0]],
                "probability": probability,
                "top1": ranks[0] == label if label >= 0 else None,
                "top5": label in ranks if label >= 0 and len(names) > 5 else None,
                "fingerprint": fingerprint,
            }
        )
    return rows


FAULTS = (None, "the network's logits are infinite", "the network's logits are NaN")
"""What may be wrong with an image's logits; None = nothing."""


def errors_of_logits(logits: Tensor) -> list[str | None]:
    """What is wrong with the logits ``(N, n_classes)`` of each image; None where all are finite.

    Example:
        >>> import torch
        >>> errors_of_logits(torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [0.0, -torch.inf]]))
        [None, "the network's logits are NaN", "the network's logits are infinite"]
    """
    return [FAULTS[fault] for fault in faults_of(logits).tolist()]


def faults_of(logits: Tensor) -> Tensor:
    """What is wrong with logits as indices in :data:`FAULTS`, int ``(N,)``; on their device."""
    return torch.where(logits.isnan(), 2, logits.isinf().int()).amax(1)


def units_of(table: Rows) -> np.ndarray:
    """The number of the image of each row, from 0, int ``(n,)``: the units that statistics take to be independent.

    Rows of one path are of one image; so are those of several paths with the same pixels, such as a photo of two
    objects that lies in the folder of each.
    """
    units = pd.factorize(codes_of(table["path"])[0])[0]
    if "fingerprint" not in table.schema.names:
        return units
    found = pc.fill_null(table["fingerprint"].cast(pa.int64()), -1).to_numpy()
    return pd.factorize(np.where(found >= 0, found, -1 - units))[0]


def with_columns(images: Sequence[Row], columns: Mapping[str, Any]) -> list[Row]:
    """The rows of N images with further columns: name -> N values, on the host; NaN becomes null."""
    values = {
        name: [without_nan(value) for value in (column.tolist() if isinstance(column, Tensor) else column)]
        for name, column in columns.items()
    }
    return [{**image, **{name: column[i] for name, column in values.items()}} for i, image in enumerate(images)]


def without_nan(value: Any) -> Any:
    """NaN, also in a list, as None: not scored."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value


def with_failures_alone(rows: Sequence[Row]) -> list[Row]:
    """The rows; of an image with a failed one only that row, without what is not of the image.

    Example:
        >>> with_failures_alone([{"path": "a", "status": "ok"}, {"path": "a", "status": "failed", "eps": 0.1}])
        [{'path': 'a', 'status': 'failed'}]
    """
    failed: dict[str, Row] = {}
    names = {field.name for field in IMAGE_FIELDS}
    for row in rows:
        if row.get("status") == "failed":
            failed.setdefault(row["path"], {name: value for name, value in row.items() if name in names})
    return [*(row for row in rows if row["path"] not in failed), *failed.values()]


def failed_rows(batch: Batch) -> list[Row]:
    """A row for each file of a batch that could not be read."""
    return [{"path": path, "status": "failed", "error": error} for path, error in batch["failed"]]
