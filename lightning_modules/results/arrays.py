"""Arrays that a run stores beside the rows of its images: Arrow files, of which one row is read at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from lightning_modules.errors import InputError

OVERHEAD = 64
"""Bytes of an image in a part beside its lists, about: its path, and its share of what describes the columns."""


def array_column(name: str, values: np.ndarray) -> tuple[pa.Field, pa.Array]:
    """A column of arrays of one shape, which its field says: fixed-size lists.

    Args:
        name: Of the column.
        values: ``(N, ...)``.
    """
    size = int(np.prod(values.shape[1:]))
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), size)
    shape = ",".join(map(str, values.shape[1:]))
    return pa.field(name, column.type, metadata={"shape": shape}), column


def table_of_arrays(paths: Sequence[str], columns: Sequence[tuple[pa.Field, pa.Array]], **facts: str) -> pa.Table:
    """A row for each image, under its path; ``facts`` hold for all of them."""
    fields = [pa.field("path", pa.string()), *(field for field, _ in columns)]
    arrays = [pa.array(paths, pa.string()), *(array for _, array in columns)]
    return pa.table(arrays, schema=pa.schema(fields, metadata=facts or None))


def finished_parts(run: Path, folder: str) -> list[Path]:
    """The parts of a folder of RUN whose rows are written."""
    return [part for part in sorted((run / folder).glob("part-*.arrow")) if _rows_of(run, part).exists()]


def remove_unfinished_parts(run: Path, folder: str) -> None:
    """Deletes the parts of a killed run whose rows were never written."""
    for part in (run / folder).glob("part-*.arrow"):
        if not _rows_of(run, part).exists():
            part.unlink()


def _rows_of(run: Path, part: Path) -> Path:
    return run / "results" / f"{part.stem}.parquet"


class StoredArrays(Mapping[str, dict[str, Any]]):
    """The arrays that a run stored in a folder, by the paths of the images. Files are mapped, a row is read on demand.

    Args:
        run: The run's folder.
        folder: The name of the folder in it.
        option: The option that stores them.

    Raises:
        InputError: If there are none, or a part is damaged.
    """

    def __init__(self, run: Path, folder: str, option: str) -> None:
        self.parts = finished_parts(run, folder)
        if not self.parts:
            raise InputError(f"{run} has nothing in {folder}: it is stored by a run with {option} true.")
        self._open = lru_cache(maxsize=4)(_opened)  # a long run has more parts than files may be open
        self._rows: dict[str, tuple[int, int, int]] = {}
        for part, file in enumerate(self.parts):
            reader = self._open(file)
            for batch in range(reader.num_record_batches):
                for row, path in enumerate(reader.get_batch(batch).column("path").to_pylist()):
                    self._rows[path] = part, batch, row
        self.schema: pa.Schema = self._open(self.parts[0]).schema

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._rows))

    def __getitem__(self, path: str) -> dict[str, Any]:
        """All columns of an image but its path; arrays have their shape."""
        part, batch, row = self._rows[path]
        record = self._open(self.parts[part]).get_batch(batch).slice(row, 1)
        values: dict[str, Any] = {}
        for field, column in zip(self.schema, record.columns):
            if field.metadata and b"shape" in field.metadata:
                shape = [int(size) for size in field.metadata[b"shape"].split(b",")]
                values[field.name] = column.flatten().to_numpy(zero_copy_only=False).reshape(shape)
            elif field.name != "path":
                values[field.name] = column[0].as_py()
        return values


def _opened(part: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(part)))
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{part} is damaged ({error}). Delete it and the part of results that is called so: the same command "
            "computes the images that they held again."
        ) from error


def as_tensor(values: np.ndarray) -> Tensor:
    """A copy: mapped memory cannot be written."""
    return torch.from_numpy(values.copy())


def check_room(run: Path, option: str, n_bytes: int, n_images: int | None) -> str:
    """How much a run is going to store, in a sentence.

    Args:
        run: Its folder.
        option: The option that stores it.
        n_bytes: Of each image, at the most.
        n_images: Images that are left; None = not counted.

    Raises:
        InputError: If the disk has not enough room.
    """
    free = shutil.disk_usage(run).free
    needed = n_bytes * (1 if n_images is None else n_images)
    text = f"{option} stores up to {_bytes(n_bytes)} of each image"
    text += "" if n_images is None else f", {_bytes(needed)} of {n_images:,}"
    if needed > free:
        raise InputError(
            f"{text}; the disk of {run} has {_bytes(free)} left. Make room, choose fewer images (data.sample), or give "
            "the run an --out on another disk."
        )
    return f"{text}; the disk has {_bytes(free)} left."


def _bytes(n: int) -> str:
    """A number of bytes in three digits.

    Example:
        >>> _bytes(999), _bytes(301_056), _bytes(45_200_000_000)
        ('999 B', '301 kB', '45.2 GB')
    """
    value = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
