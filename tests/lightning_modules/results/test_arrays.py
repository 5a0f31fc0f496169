"""What is kept beside rows: parts that come and go with those of the rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from lightning_modules import InputError
from lightning_modules.results import storage
from lightning_modules.results.arrays import (
    StoredArrays,
    array_column,
    check_room,
    finished_parts,
    remove_unfinished_parts,
    table_of_arrays,
)
from lightning_modules.results.storage import Parts

SCHEMA = pa.schema({"path": pa.string()})


def arrays(*numbers: int) -> np.ndarray:
    return np.stack([np.arange(6, dtype=np.float16).reshape(1, 2, 3) + 10 * k for k in numbers])


def table(*numbers: int) -> pa.Table:
    columns = [
        array_column("map", arrays(*numbers)),
        (pa.field("scale", pa.float64()), pa.array([*map(float, numbers)])),
    ]
    return table_of_arrays([f"image {k}" for k in numbers], columns, size="2,3")


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"path": f"image {k}"} for k in numbers]


def parts(run: Path, rows_per_part: int = 100) -> Parts:
    return Parts(run / "results", SCHEMA, 0, rows_per_part, 1e9)


def read(run: Path) -> StoredArrays:
    return StoredArrays(run, "maps", "model.save_maps")


def test_each_image_is_read_as_it_was(tmp_path: Path) -> None:
    writing = parts(tmp_path, 3)
    for numbers in ((3, 1), (2, 0), (4,)):
        writing.add(rows(*numbers), {"maps": table(*numbers)})
    writing.write()
    names = [[part.stem for part in sorted((tmp_path / folder).iterdir())] for folder in ("results", "maps")]
    assert names[0] == names[1]
    assert len(names[0]) == 2
    found = read(tmp_path)
    assert list(found) == [f"image {k}" for k in range(5)]
    for k in range(5):
        row = found[f"image {k}"]
        assert row["map"].dtype == np.float16
        np.testing.assert_array_equal(row["map"], arrays(k)[0])
        assert row["scale"] == k
    assert found.schema.metadata == {b"size": b"2,3"}
    with pytest.raises(KeyError):
        found["image 5"]


def test_a_part_is_written_when_much_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MOST_BYTES", 1)
    writing = parts(tmp_path)
    for k in range(3):
        writing.add(rows(k), {"maps": table(k)})
        assert len(finished_parts(tmp_path, "maps")) == k + 1


def test_a_row_never_lacks_what_is_kept_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed between the two leaves a part without rows: it is not read, and is deleted."""
    writing = parts(tmp_path)
    writing.add(rows(0), {"maps": table(0)})
    writing.write()
    writing.add(rows(1), {"maps": table(1)})
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_part", _killed)
        with pytest.raises(KeyboardInterrupt):
            writing.write()
    assert len(list((tmp_path / "maps").iterdir())) == 2
    assert list(read(tmp_path)) == ["image 0"]
    writing.write()  # as where an exception is told: to the same part
    assert len(list((tmp_path / "maps").iterdir())) == len(list((tmp_path / "results").iterdir())) == 2
    assert list(read(tmp_path)) == ["image 0", "image 1"]
    max((tmp_path / "results").iterdir()).unlink()
    remove_unfinished_parts(tmp_path, "maps")
    assert [part.stem for part in (tmp_path / "maps").iterdir()] == [p.stem for p in (tmp_path / "results").iterdir()]


def _killed(*args: object) -> None:
    raise KeyboardInterrupt


def test_what_is_kept_of_images_without_rows_is_not_written(tmp_path: Path) -> None:
    """As where a signal comes between the two."""
    writing = parts(tmp_path)
    writing.add(rows(0), {"maps": table(0, 1)})
    writing.write()
    assert list(read(tmp_path)) == ["image 0"]


def test_reading_one_image_reads_no_other(tmp_path: Path) -> None:
    """What is mapped is not copied: the bytes that change in the file change in what was read before."""
    writing = parts(tmp_path)
    writing.add(rows(0, 1), {"maps": table(0, 1)})
    writing.write()
    seen = read(tmp_path)["image 1"]["map"]
    (part,) = (tmp_path / "maps").iterdir()
    content = part.read_bytes()
    place = content.index(arrays(1).tobytes())
    with part.open("r+b") as file:
        file.seek(place)
        file.write(np.float16(77).tobytes())
    assert seen[0, 0, 0] == 77


def test_nothing_kept_and_a_damaged_part(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has nothing in maps: it is stored by a run with model\.save_maps true"):
        read(tmp_path)
    writing = parts(tmp_path)
    writing.add(rows(0), {"maps": table(0)})
    writing.write()
    (part,) = (tmp_path / "maps").iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"{part.name} is damaged .*Delete it and the part of results"):
        read(tmp_path)


class Disk(NamedTuple):
    free: int


def test_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda run: Disk(3_000_000))
    text = check_room(tmp_path, "model.save_maps", 301_056, 9)
    assert text == "model.save_maps stores up to 301 kB of each image, 2.71 MB of 9; the disk has 3 MB left."
    with pytest.raises(InputError, match=r"3\.01 MB of 10; the disk of .* has 3 MB left\. Make room"):
        check_room(tmp_path, "model.save_maps", 301_056, 10)
    assert "of each image; the disk has" in check_room(tmp_path, "model.save_maps", 301_056, None)
