from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_modules.errors import InputError
from lightning_modules.results.rows.parts import done_paths, part_name, read_rows, refuse_other_columns, write_part
from lightning_modules.whole_files import written_whole
from tests.lightning_modules.results.made_rows import SCHEMA, failed, rows


def test_round_trip_in_the_order_of_paths(tmp_path: Path) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None), SCHEMA)
    write_part(tmp_path / part_name(1), failed("c") + rows("a", 1, 0, 0.25, 0.5), SCHEMA)
    table = read_rows(tmp_path)
    assert table.schema.equals(SCHEMA)
    assert table["path"].to_pylist() == ["a", "a", "b", "b", "c"]
    assert table["score"].to_pylist() == [0.25, 0.5, 1.0, None, None]
    assert done_paths(tmp_path) == {"a", "b", "c"}
    assert done_paths(tmp_path / "nowhere") == set()


def test_a_part_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    """By those that README names too, while it grows and after a kill."""
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0, None), SCHEMA)
    with written_whole(tmp_path / part_name(1)) as aside:
        aside.write_bytes(next(tmp_path.glob("*.parquet")).read_bytes()[:-20])
        seen = [
            pd.read_parquet(tmp_path),
            pq.read_table(tmp_path).to_pandas(),
            duckdb.sql(f"SELECT * FROM '{tmp_path}/*.parquet'").df(),
            read_rows(tmp_path).to_pandas(),
        ]
    assert [frame["path"].tolist() for frame in seen] == [["b", "b"]] * 4


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (SCHEMA.append(pa.field("more", pa.float64())), "they lack more. Give"),
        (SCHEMA.remove(SCHEMA.get_field_index("score")), "they have besides score. Give"),
        (pa.schema([*list(SCHEMA)[:-1], pa.field("score", pa.int64())]), "they have in another form score. Give"),
    ],
    ids=["fewer", "more", "another type"],
)
def test_rows_are_added_to_their_like_only(tmp_path: Path, schema: pa.Schema, message: str) -> None:
    write_part(tmp_path / part_name(0), rows("b", 0, 0, 1.0), schema)
    refuse_other_columns(tmp_path, schema)
    write_part(tmp_path / part_name(1), rows("a", 0, 0, 1.0), SCHEMA)
    with pytest.raises(InputError, match=message):
        refuse_other_columns(tmp_path, schema)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    part = tmp_path / part_name(0)
    part.write_bytes(b"PAR1")
    for read in (read_rows, lambda folder: refuse_other_columns(folder, SCHEMA)):
        with pytest.raises(InputError, match=f"{part.name} is damaged"):
            read(tmp_path)
