"""The table of a run: rows for each image, in Parquet parts that are never rewritten."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from datamodules.batch import UPRIGHT, Batch
from lightning_modules.errors import InputError
from lightning_modules.results.stored import StoredRows, codes_of, opened_part, parts_of
from lightning_modules.whole_files import written_whole

IMAGE_FIELDS = [
    pa.field("path", pa.string()),
    pa.field("status", pa.string()),
    pa.field("error", pa.string()),
    pa.field("exif_orientation", pa.int64()),
    pa.field("doubt", pa.string()),
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

``exif_orientation``, 2 to 8, is what the file asks for and was not given; 1 = nothing. ``doubt`` says why the pixels
may be others than meant; null = there is no reason.
"""


Row = dict[str, Any]
"""The columns of a row by their names; what is missing is null."""

Rows: TypeAlias = pa.Table | StoredRows
"""The rows of a run, in the memory or in its folder: what a summary is made of."""


class Seen(NamedTuple):
    """What rows say of the logits of N images, and of their labels; made on the device, to be read with all else.

    Attributes:
        label: As the batch has it, long ``(N,)``.
        ranks: The most probable classes, at most five, the first first: long ``(N, 5)``.
        probability: Of the first, float64 ``(N,)``.
        fault: What is wrong with the logits, by its number in :data:`FAULTS`: int ``(N,)``.
    """

    label: Tensor
    ranks: Tensor
    probability: Tensor
    fault: Tensor


def seen_in(logits: Tensor, batch: Batch) -> Seen:
    """What rows say of logits ``(N, n_classes)`` and of the labels of their batch."""
    best = logits.topk(min(5, logits.shape[1])).indices
    return Seen(batch["label"], best, logits.softmax(1).double().amax(1), faults_of(logits))


def image_columns(seen: Seen, batch: Batch, names: Sequence[str]) -> list[Row]:
    """What every row says of its image: a dict of the columns ``IMAGE_FIELDS`` for each image.

    Where the logits are NaN or infinite there is no prediction: the image failed.

    Args:
        seen: See :func:`seen_in`; on the host, as :func:`~lightning_modules.results.reading.on_host` has it.
        batch: Where the images are from.
        names: Of the network's classes; each label is one, or -1.
    """
    rows: list[Row] = []
    for path, orientation, doubt, error, of_logits, label, ranks, probability in zip(
        batch["path"],
        batch["exif_orientation"],
        batch["doubt"],
        batch["box_error"],
        (FAULTS[fault] for fault in seen.fault.tolist()),
        seen.label.tolist(),
        seen.ranks.tolist(),
        seen.probability.tolist(),
    ):
        row = {"path": path, "exif_orientation": orientation, "doubt": doubt}
        row |= {"label": label, "label_name": names[label] if label >= 0 else None}
        if of_logits is not None:
            rows.append({**row, "status": "failed", "error": of_logits})
            continue
        rows.append(
            {
                **row,
                "status": "ok",
                "error": error,
                "prediction": ranks[0],
                "prediction_name": names[ranks[0]],
                "probability": probability,
                "top1": ranks[0] == label if label >= 0 else None,
                "top5": label in ranks if label >= 0 and len(names) > 5 else None,
            }
        )
    return rows


FAULTS = (None, "the network's logits are infinite", "the network's logits are NaN")
"""What may be wrong with an image's logits; the first is nothing."""


def errors_of_logits(logits: Tensor) -> list[str | None]:
    """What is wrong with the logits ``(N, n_classes)`` of each image; None where all are finite.

    Example:
        >>> import torch
        >>> errors_of_logits(torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [0.0, -torch.inf]]))
        [None, "the network's logits are NaN", "the network's logits are infinite"]
    """
    return [FAULTS[fault] for fault in faults_of(logits).tolist()]


def faults_of(logits: Tensor) -> Tensor:
    """The same by their numbers in :data:`FAULTS`, int ``(N,)``; not read yet."""
    return torch.where(logits.isnan(), 2, logits.isinf().int()).amax(1)


def with_columns(images: Sequence[Row], columns: Mapping[str, Any]) -> list[Row]:
    """Rows of what every row says of its image, and of further columns: name -> N values; NaN becomes null.

    Tensors among them should lie on the host, as :func:`~lightning_modules.results.reading.on_host` has them.
    """
    values = {
        name: [without_nan(value) for value in (of.tolist() if isinstance(of, Tensor) else of)]
        for name, of in columns.items()
    }
    return [{**image, **{name: of[i] for name, of in values.items()}} for i, image in enumerate(images)]


def without_nan(value: Any) -> Any:
    """NaN, also in a list, as None: not scored."""
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value


def with_failures_alone(rows: Sequence[Row]) -> list[Row]:
    """The rows, but of an image of which any failed only that one, with what it says of the image: nothing else holds.

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
    """The rows of what a batch met and could not read: one for each (path, error) of ``failed``."""
    return [{"path": path, "status": "failed", "error": error} for path, error in batch["failed"]]


class Parts:
    """Writes rows to a folder as they come, in parts that are whole or not there.

    Args:
        folder: Where the parts go.
        schema: Columns of the rows.
        rank: Of the process that writes.
        rows_per_part: A part is written when it has this many rows ...
        seconds_per_part: ... or is this old: what a crash can lose at most.
    """

    def __init__(self, folder: Path, schema: pa.Schema, rank: int, rows_per_part: int, seconds_per_part: float) -> None:
        self.folder = folder
        self.schema = schema
        self.rank = rank
        self.rows_per_part = rows_per_part
        self.seconds_per_part = seconds_per_part
        self.rows: list[Row] = []
        self.part: Path | None = None
        self.last_part = time.monotonic()

    def add(self, rows: Sequence[Row]) -> None:
        self.rows += rows
        if len(self.rows) >= self.rows_per_part or time.monotonic() - self.last_part > self.seconds_per_part:
            self.write()

    def write(self) -> None:
        """Writes what there is."""
        if self.rows:
            # Where an error comes at any point here, the rows are written once more: to the same part.
            self.part = self.part or self.folder / part_name(self.rank)
            write_part(self.part, self.rows, self.schema)
            self.rows = []
        self.part = None
        self.last_part = time.monotonic()


def part_name(rank: int) -> str:
    """The name of a new part: by the time, and the process that writes it."""
    return f"part-{time.time_ns()}-{rank:04d}.parquet"


def write_part(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Writes rows as a part."""
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    with written_whole(path) as aside:
        pq.write_table(pa.table(columns, schema=schema), aside)


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a run, in the order of their paths, so that what is computed of them does not depend on the parts.

    Raises:
        InputError: If a part is damaged.
    """
    if not parts_of(folder):
        return pa.table({name: [] for name in columns or ["path"]})
    return StoredRows(folder, columns).to_table()


def columns_of_rows(folder: Path, *, lists: bool = True) -> list[str]:
    """The names of the columns of a run's first part, which all parts have; [] where there is none.

    Args:
        folder: Of the parts.
        lists: Whether columns of lists, such as curves, are among them.

    Raises:
        InputError: If the part is damaged.
    """
    for part in parts_of(folder)[:1]:
        with opened_part(part) as file:
            return [field.name for field in file.schema_arrow if lists or not pa.types.is_list(field.type)]
    return []


def refuse_other_columns(folder: Path, schema: pa.Schema) -> None:
    """Asks that all parts have the columns of a schema, so that rows are only added to their like.

    Raises:
        InputError: If a part has others, as another version's may, or is damaged.
    """
    for part in parts_of(folder):
        with opened_part(part) as file:
            found = file.schema_arrow
        lacks = [field.name for field in schema if field.name not in found.names]
        has = [name for name in found.names if name not in schema.names]
        kinds = [field.name for field in schema if field.name in found.names and found.field(field.name) != field]
        words = (("lack", lacks), ("have besides", has), ("have in another form", kinds))
        if differences := [f"{verb} {', '.join(names)}" for verb, names in words if names]:
            raise InputError(
                f"The rows in {folder} were written by another version: they {'; they '.join(differences)}. Give this "
                "run another --out, or start over with --overwrite."
            )


def done_paths(folder: Path) -> set[str]:
    """Paths of the images that have their rows already, the failed ones too."""
    done: set[str] = set()
    if parts_of(folder):
        for batch in StoredRows(folder, ["path"]).to_batches():
            done.update(batch.column(0).dictionary.to_pylist())
    return done


def summarize_images(table: Rows) -> dict[str, Any]:
    """Counts of images and accuracy, from rows of which an image may have several.

    ``top1`` and ``top5`` are shares of the labelled images that did not fail, None where there is nothing to tell.
    ``n_unturned`` counts those that ask by their EXIF orientation to be turned, and were not; ``doubts`` those of which
    the pixels may be others than meant, by the reason.
    """
    is_first = pa.array(~pd.Series(codes_of(table["path"])[0]).duplicated().to_numpy())
    is_good = pc.equal(table["status"].filter(is_first), "ok").fill_null(False)

    def of_good(name: str) -> pa.ChunkedArray:
        return table[name].filter(is_first).filter(is_good)

    n_good = pc.sum(is_good).as_py() or 0
    doubts = pc.value_counts(of_good("doubt").cast(pa.string()).drop_null())
    summary: dict[str, Any] = {
        "n_images": len(is_good),
        "n_failed": len(is_good) - n_good,
        "n_box_errors": n_good - of_good("error").null_count,
        "n_unturned": _count(pc.greater(of_good("exif_orientation"), UPRIGHT)),
        "doubts": dict(sorted((each["values"], each["counts"]) for each in doubts.to_pylist())),
        "n_labelled": _count(pc.greater_equal(of_good("label"), 0)),
    }
    return summary | {name: pc.mean(of_good(name)).as_py() for name in ("top1", "top5")}


def _count(holds: pa.ChunkedArray) -> int:
    return pc.sum(holds).as_py() or 0
