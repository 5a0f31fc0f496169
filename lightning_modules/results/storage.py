"""The rows in the folder of a run: Parquet parts that are written once, and read a column at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from datamodules.writing import written_whole
from lightning_modules.errors import InputError

KEYS = ("path", "method", "eps", "variant")
"""Rows are ordered by these columns, as far as they have them."""

MOST_BYTES = 256 * 2**20
"""A part is written when the arrays beside its rows take so many bytes."""

Row: TypeAlias = dict[str, Any]
"""Column name -> value; a missing one is null."""


class Parts:
    """Writes rows to a folder as they come, in parts that are whole or not there, and arrays of their images beside.

    The arrays of a part lie in folders of their own, under the name of the part, and are written before its rows: a
    part of arrays without one of rows was never finished.

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
        self.arrays: dict[str, list[pa.Table]] = {}
        self.name = ""
        self.last_part = time.monotonic()

    def add(self, rows: Sequence[Row], arrays: Mapping[str, pa.Table] | None = None) -> None:
        """Adds rows and, by the names of folders in RUN, tables with the arrays of their images."""
        for folder, table in (arrays or {}).items():
            self.arrays.setdefault(folder, []).append(table)
        self.rows += rows
        n_bytes = sum(table.nbytes for tables in self.arrays.values() for table in tables)
        is_old = time.monotonic() - self.last_part > self.seconds_per_part
        if len(self.rows) >= self.rows_per_part or is_old or n_bytes >= MOST_BYTES:
            self.write()

    def write(self) -> None:
        """Writes what there is."""
        if self.rows:
            # After an error at any point here, the rows are written again: to the same part.
            self.name = self.name or part_name(self.rank)
            # After an interrupt, arrays may exist for images whose rows were not added; drop them.
            paths = pa.array({row["path"] for row in self.rows}, pa.string())
            for folder, tables in self.arrays.items():
                table = pa.concat_tables(tables)
                table = table.filter(pc.is_in(table["path"], value_set=paths))
                _write_arrays(self.folder.parent / folder / f"{Path(self.name).stem}.arrow", table)
            write_part(self.folder / self.name, self.rows, self.schema)
            self.rows = []
        self.name, self.arrays = "", {}
        self.last_part = time.monotonic()


def _write_arrays(path: Path, table: pa.Table) -> None:
    # Not compressed, and as Arrow has it in the memory: a reader maps the file and reads the one row that it wants.
    with written_whole(path) as aside, pa.ipc.new_file(str(aside), table.schema) as file:
        file.write_table(table)


def part_name(rank: int) -> str:
    """The name of a new part: by the time, and the process that writes it."""
    return f"part-{time.time_ns()}-{rank:04d}.parquet"


def write_part(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    """Writes rows as a part."""
    columns = {name: [row.get(name) for row in rows] for name in schema.names}
    with written_whole(path) as aside:
        pq.write_table(pa.table(columns, schema=schema), aside)


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, in the order in which they were begun."""
    return sorted(folder.glob("part-*.parquet"))


@contextmanager
def _refusing_damage() -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise InputError(
            f"A part of the rows is damaged: {error}. Delete it: the same command computes the images that it held "
            "again."
        ) from error


def dataset_of(folder: Path, dictionaries: Sequence[str] = ()) -> ds.Dataset:
    """The rows in a folder, in the order in which they were written, as a dataset of pyarrow's.

    Args:
        folder: With at least one part.
        dictionaries: Columns of text that are read as dictionaries.

    Raises:
        InputError: If the first part is damaged.
    """
    # A list of files: in a folder named key=value, pyarrow would add a column.
    files = [str(part) for part in parts_of(folder)]
    options = ds.ParquetReadOptions(dictionary_columns=dictionaries)
    with _refusing_damage():
        return ds.dataset(files, format=ds.ParquetFileFormat(read_options=options))


def read_columns(
    folder: Path, columns: Sequence[str], where: pc.Expression | None = None, dictionaries: Sequence[str] = ()
) -> pa.Table:
    """Columns of the rows in a folder, in the order in which they were written.

    Args:
        folder: With at least one part.
        columns: Names of the columns.
        where: Which rows. None = all.
        dictionaries: Columns of text that are read as dictionaries.

    Raises:
        InputError: If a part is damaged.
    """
    dataset = dataset_of(folder, dictionaries)
    with _refusing_damage():
        return dataset.to_table(list(columns), filter=where, use_threads=False)


class StoredRows:
    """The rows of a run in the order of :data:`KEYS`, so that no result depends on how they are split into parts.

    For a summary it does what a ``pyarrow.Table`` does, in little memory: ``rows[name]`` reads that column, with text
    as dictionaries.

    Args:
        folder: Where the parts lie; at least one.
        columns: Names of the columns. None = all.

    Attributes:
        schema: Of these columns.

    Raises:
        InputError: If a part is damaged; also when a column is read.
    """

    def __init__(self, folder: Path, columns: Sequence[str] | None = None) -> None:
        self._folder = folder
        whole = dataset_of(folder).schema
        self.schema = whole if columns is None else pa.schema([whole.field(name) for name in columns])
        self._texts = [field.name for field in whole if pa.types.is_string(field.type)]
        self._keys = {name: self._unordered(name) for name in KEYS if name in whole.names}

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        """A column, in the order of the rows."""
        column = self._keys[name] if name in self._keys else self._unordered(name)
        return pa.chunked_array([column.take(self._order)])

    def to_table(self) -> pa.Table:
        """All columns in the memory, each with the type of the schema."""
        return pa.table([self[name].cast(self.schema.field(name).type) for name in self.schema.names], self.schema)

    def to_pandas(self) -> pd.DataFrame:
        return self.to_table().to_pandas()

    def _unordered(self, name: str) -> pa.Array:
        column = read_columns(self._folder, [name], dictionaries=self._texts)[name]
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)

    @cached_property
    def _order(self) -> np.ndarray:
        """The row numbers by the first key, among equal ones by the next; equal rows stay as they were written."""
        return np.lexsort([_ranks(column) for column in self._keys.values()][::-1])


def _ranks(column: pa.Array) -> np.ndarray:
    """The rank of each value among the distinct ones; nulls come last."""
    codes, values = codes_of(pa.chunked_array([column]))
    ranks = np.full(len(values) + 1, len(values), np.int32)  # the last is that of code -1
    ranks[pc.array_sort_indices(values).to_numpy()] = np.arange(len(values), dtype=np.int32)
    return ranks[codes]


Rows: TypeAlias = pa.Table | StoredRows
"""The rows of a run, in the memory or in its folder: what a summary is made of."""


def read_rows(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a run in the memory, in the order of their paths.

    Raises:
        InputError: If a part is damaged.
    """
    if not parts_of(folder):
        return pa.table({name: [] for name in columns or ["path"]})
    return StoredRows(folder, columns).to_table()


def columns_of_rows(folder: Path, *, lists: bool = True) -> list[str]:
    """The names of the columns of a run, [] if it has no rows.

    Args:
        folder: Of the parts.
        lists: Whether to include columns of lists, such as curves.

    Raises:
        InputError: If a part is damaged.
    """
    schema = dataset_of(folder).schema if parts_of(folder) else ()
    return [field.name for field in schema if lists or not pa.types.is_list(field.type)]


def refuse_other_columns(folder: Path, schema: pa.Schema) -> None:
    """Checks that all parts have the columns of a schema, so that rows are only added to rows like them.

    Raises:
        InputError: If a part has others, as one of another version may, or is damaged.
    """
    with _refusing_damage():
        schemas = [part.physical_schema for part in dataset_of(folder).get_fragments()]
    for found in schemas:
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
    return set(read_columns(folder, ["path"])["path"].unique().to_pylist()) if parts_of(folder) else set()


def groups_of(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """Value -> numbers of its rows, for each value of a column of text but null, in the order of their first rows.

    Example:
        >>> groups_of(pa.chunked_array([["b", "a", None, "b"]]))
        {'b': array([0, 3]), 'a': array([1])}
    """
    codes, values = codes_of(column)
    groups = {str(value): np.flatnonzero(codes == code) for code, value in enumerate(values)}
    return dict(sorted(((value, rows) for value, rows in groups.items() if len(rows)), key=lambda item: item[1][0]))


def codes_of(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """For each row of a column the index of its value among the distinct values, -1 = null; and these values.

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
