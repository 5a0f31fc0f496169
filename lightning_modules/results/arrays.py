"""What a run keeps of its images beside their rows: tables of large lists, in parts that are read a row at a time."""

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


def list_column(name: str, values: np.ndarray) -> tuple[pa.Field, pa.Array]:
    """A column whose rows are arrays of one shape, and says which: fixed-size lists.

    Args:
        name: Of the column.
        values: ``(N, ...)``.
    """
    of_row = values[0].size if len(values) else int(np.prod(values.shape[1:]))
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), of_row)
    shape = ",".join(map(str, values.shape[1:]))
    return pa.field(name, column.type, metadata={"shape": shape}), column


def kept_table(paths: Sequence[str], columns: Sequence[tuple[pa.Field, pa.Array]], **facts: str) -> pa.Table:
    """A row for each image, under its path; ``facts`` hold for all of them."""
    fields = [pa.field("path", pa.string()), *(field for field, _ in columns)]
    arrays = [pa.array(paths, pa.string()), *(array for _, array in columns)]
    return pa.table(arrays, schema=pa.schema(fields, metadata=facts or None))


def finished_parts(run: Path, folder: str) -> list[Path]:
    """The parts of a folder of RUN whose rows are written."""
    return [part for part in sorted((run / folder).glob("part-*.arrow")) if _rows_of(run, part).exists()]


def remove_unfinished_parts(run: Path, folder: str) -> None:
    """Deletes what a run that was killed kept of images whose rows it did not write any more."""
    for part in (run / folder).glob("part-*.arrow"):
        if not _rows_of(run, part).exists():
            part.unlink()


def _rows_of(run: Path, part: Path) -> Path:
    return run / "results" / f"{part.stem}.parquet"


class Kept(Mapping[str, dict[str, Any]]):
    """What a run kept in a folder, by the paths of the images; the files are mapped, and a row is read when asked for.

    Args:
        run: The run's folder.
        folder: The name of the folder in it.
        option: Of the command line, by which a run keeps it.

    Raises:
        InputError: If there is nothing kept, or a part is damaged.
    """

    def __init__(self, run: Path, folder: str, option: str) -> None:
        self.parts = finished_parts(run, folder)
        if not self.parts:
            raise InputError(f"{run} has nothing in {folder}: it is kept by a run with {option} true.")
        self._open = lru_cache(maxsize=4)(_opened)  # of a long run there are more parts than files may be open
        self._places: dict[str, tuple[int, int, int]] = {}
        for part, file in enumerate(self.parts):
            reader = self._open(file)
            for batch in range(reader.num_record_batches):
                for row, path in enumerate(reader.get_batch(batch).column("path").to_pylist()):
                    self._places[path] = part, batch, row
        self.schema: pa.Schema = self._open(self.parts[0]).schema

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._places))

    def __getitem__(self, path: str) -> dict[str, Any]:
        """All columns of an image but its path, arrays in the shape that they have."""
        part, batch, row = self._places[path]
        record = self._open(self.parts[part]).get_batch(batch).slice(row, 1)
        return {
            field.name: _values(field, record.column(k)) for k, field in enumerate(self.schema) if field.name != "path"
        }


def _opened(part: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(part)))
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{part} is damaged ({error}). Delete it and the part of results that is called so: the same command "
            "computes the images that they held again."
        ) from error


def _values(field: pa.Field, column: pa.Array) -> Any:
    """The value of a column of one row; a list whose shape is known as an array of that shape."""
    if not (field.metadata and b"shape" in field.metadata):
        return column[0].as_py()
    shape = [int(size) for size in field.metadata[b"shape"].split(b",")]
    return column.flatten().to_numpy(zero_copy_only=False).reshape(shape)


def as_tensor(values: np.ndarray) -> Tensor:
    """A copy, since what is mapped cannot be written."""
    return torch.from_numpy(values.copy())


def check_room(run: Path, option: str, of_image: int, n_images: int | None) -> str:
    """How much a run is going to keep, in a sentence.

    Args:
        run: Where.
        option: What keeps it.
        of_image: Bytes of each image, at the most.
        n_images: Images that are left; None = nobody has counted them.

    Raises:
        InputError: If the disk has not that much.
    """
    free = shutil.disk_usage(run).free
    needed = of_image * (1 if n_images is None else n_images)
    said = f"{option} keeps up to {_bytes(of_image)} of each image"
    said += "" if n_images is None else f", {_bytes(needed)} of {n_images:,}"
    if needed > free:
        raise InputError(
            f"{said}; the disk of {run} has {_bytes(free)} left. Make room, choose fewer images (data.sample), or give "
            "the run an --out on another disk."
        )
    return f"{said}; the disk has {_bytes(free)} left."


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
