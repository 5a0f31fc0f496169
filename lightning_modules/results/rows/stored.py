"""The rows in a run's folder, read a column at a time: those of a million images need not fit in the memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightning_modules.errors import InputError

KEYS = ("path", "method", "eps", "variant")
"""The columns that rows are ordered by, those of them that there are."""


class StoredRows:
    """The rows of a folder's parts, in the order of their paths: what is computed of them does not depend on the parts.

    It does what a ``pyarrow.Table`` does for a summary, and takes little memory: ``rows[name]`` reads that column, text
    as dictionaries.

    Args:
        folder: Where the parts lie; at least one.
        columns: Those that there are to be. None = all.

    Attributes:
        schema: Of these columns.

    Raises:
        InputError: If a part is damaged; also when a column is read.
    """

    def __init__(self, folder: Path, columns: Sequence[str] | None = None) -> None:
        self._parts = {part: _metadata(part) for part in parts_of(folder)}
        self._whole_schema = next(iter(self._parts.values())).schema.to_arrow_schema()
        self._kept: dict[str, pa.Array] = {}
        self.schema = self._whole_schema if columns is None else self._schema_of(columns)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A column, in the order of the rows."""
        return pa.chunked_array([self._unordered(name).take(self._order)])

    def select(self, columns: Sequence[str]) -> StoredRows:
        selected = copy.copy(self)  # which knows of the parts and of the order what this one does
        selected.schema = self._schema_of(columns)
        return selected

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows part by part, in the order in which they were written."""
        texts = [field.name for field in self.schema if pa.types.is_string(field.type)]
        for part, metadata in self._parts.items():
            with opened_part(part, metadata=metadata, read_dictionary=texts) as file:
                yield from file.read(self.schema.names, use_threads=False).to_batches()

    def to_table(self) -> pa.Table:
        """All of it, in the memory, each column as the schema has it."""
        return pa.table([self[name].cast(self.schema.field(name).type) for name in self.schema.names], self.schema)

    def to_pandas(self) -> pd.DataFrame:
        return self.to_table().to_pandas()

    def _schema_of(self, columns: Sequence[str]) -> pa.Schema:
        return pa.schema([self._whole_schema.field(name) for name in columns])

    def _unordered(self, name: str) -> pa.Array:
        if name in self._kept:
            return self._kept[name]
        # Joined so, dictionaries become one faster than by unify_dictionaries().
        column = pa.concat_arrays([batch.column(0) for batch in self.select([name]).to_batches()])
        if name in KEYS:  # asked for again, and small
            self._kept[name] = column
        return column

    @cached_property
    def _order(self) -> np.ndarray:
        """Which row comes when: by the first key, among equal ones by the next; among equals as they were written."""
        keys = [_ranks(self._unordered(name)) for name in KEYS if name in self._whole_schema.names]
        return np.lexsort(keys[::-1])


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, in the order in which they were begun."""
    return sorted(folder.glob("part-*.parquet"))


@contextmanager
def opened_part(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """A part as a file of Parquet's.

    Args:
        path: Of the part.
        options: Of ``pyarrow.parquet.ParquetFile``.

    Raises:
        InputError: If the part is damaged.
    """
    try:
        # As a file of its own: in a folder named key=value, pyarrow would add a column.
        with pq.ParquetFile(path, **options) as file:
            yield file
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} is damaged ({error}). Delete it: the same command computes the images that it held again."
        ) from error


def _metadata(part: Path) -> pq.FileMetaData:
    with opened_part(part) as file:
        return file.metadata


def groups_of(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """Each value of a column of text, the first first, and where it stands; nulls are in no group.

    Example:
        >>> groups_of(pa.chunked_array([["b", "a", None, "b"]]))
        {'b': array([0, 3]), 'a': array([1])}
    """
    codes, values = codes_of(column)
    places = {str(value): np.flatnonzero(codes == code) for code, value in enumerate(values)}
    return dict(sorted(((value, of) for value, of in places.items() if len(of)), key=lambda item: item[1][0]))


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """For each row of a column the place of its value among the distinct values, -1 = null; and these values.

    Example:
        >>> codes, values = codes_of(pa.chunked_array([["b", "a", None, "b"]]))
        >>> codes.tolist(), values.to_pylist()
        ([0, 1, -1, 0], ['b', 'a'])
    """
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = encoded.unify_dictionaries().combine_chunks()
    return array.indices.fill_null(-1).to_numpy(zero_copy_only=False), array.dictionary


def numbers_of(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers or truth values as float64 ``(n,)``, null = NaN, true = 1."""
    return pc.cast(column, pa.float64()).to_numpy()


def _ranks(column: pa.Array) -> np.ndarray:
    """Of each value its rank among the distinct ones; nulls come last."""
    codes, values = codes_of(pa.chunked_array([column]))
    ranks = np.full(len(values) + 1, len(values), np.int32)  # the last is that of code -1
    ranks[pc.array_sort_indices(values).to_numpy()] = np.arange(len(values), dtype=np.int32)
    return ranks[codes]
