"""The table of a run: rows for each image, in Parquet parts that are never rewritten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lightning_modules.errors import InputError
from lightning_modules.results.rows.images import Row
from lightning_modules.results.rows.stored import StoredRows, opened_part, parts_of
from lightning_modules.whole_files import written_whole


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
