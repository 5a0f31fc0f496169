"""Tables of images and classes, as people and programs write them: what divides the cells, and which columns count."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.errors import DataError, some
from datamodules.images.formats import image_extensions

_PATH_COLUMNS = (
    *("path", "file_path", "filepath", "relative_path", "file", "filename", "file_name", "image", "image_path"),
    *("image_id", "imageid", "image_name", "img", "id", "stem", "name"),
)
_CLASS_COLUMNS = (
    *("wnid", "wordnet_id", "synset", "synset_id", "predictionstring", "class", "class_name", "classname", "label"),
    *("label_name", "category", "target", "class_index", "class_id", "class_idx", "label_index", "label_id"),
    "category_id",
)
"""What columns are called in files that people have; of several, the first of this list counts.

Not ``index``, which as often numbers the rows."""

HEAD, _CHUNK = 1000, 1 << 16
"""Lines that say how the others are divided; lines that are Python objects at a time."""


def read_table(path: Path, head: Sequence[str], lines: TextIO) -> tuple[pa.Table, str]:
    """A table's columns ``image`` and ``class``, and what the column of the class is called, "" = nothing.

    Args:
        path: Of the file, for messages.
        head: Its first lines that are not blank.
        lines: The file. Lines that begin with ``#`` and do not have the cells of the others are comments.

    Raises:
        DataError: If it is no such table.
    """
    delimiter = _delimiter(head)
    rows = [*_rows(head, delimiter)]
    width = len(next((row for row in rows if not row[0].startswith("#")), rows[0]))
    first = next((row for row in rows if not row[0].startswith("#") or len(row) == width), [""])
    columns = _columns(first)
    if columns is None and len(first) != 2:
        raise DataError(
            f"{path} (data.labels) should be a table, CSV or TSV, with the columns path and class, or of two "
            f"columns without headings; its first line is {', '.join(first)[:200]!r}."
        )
    place, label, heading = columns or (0, 1, "")
    headings = (first[place], first[label]) if columns else None
    lines.seek(0)
    if delimiter is None:
        parts = [pd.DataFrame(map(_by_space, filter(str.strip, lines)), columns=range(2))]
    else:
        most = max(map(len, csv.reader(head, delimiter=delimiter)))
        how: dict[str, Any] = {"header": None, "names": range(most), "dtype": str, "na_filter": False}
        how["index_col"] = False
        parts = pd.read_csv(lines, sep=delimiter, chunksize=_CHUNK, **how)
    try:
        table = pa.concat_tables([_checked(path, part, width, place, label, headings) for part in parts])
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path} (data.labels): {str(error).strip()}. A name with a comma needs quotes round it."
        ) from error
    if not len(table):
        raise DataError(f"{path} (data.labels) has headings, and no line below them.")
    return _of_kaggle(path, table) if heading == "predictionstring" else table, heading


def _checked(
    path: Path, part: pd.DataFrame, width: int, place: int, label: int, headings: tuple[str, str] | None
) -> pa.Table:
    """Path and class of some lines, without comments: what begins with # and does not have as many cells."""
    cells = [pc.utf8_trim_whitespace(pa.array(part[k], pa.string()).fill_null("")) for k in part]
    sizes = np.max([(k + 1) * np.asarray(pc.not_equal(cell, "")) for k, cell in enumerate(cells)], axis=0)
    counts = (sizes > 0) & (~np.asarray(pc.starts_with(cells[0], "#")) | (sizes == width))
    paths, classes = cells[place], cells[label]
    if headings is not None:
        counts &= ~np.asarray(pc.and_(pc.equal(paths, headings[0]), pc.equal(classes, headings[1])))
    is_wrong = counts & ((sizes > width) | np.asarray(pc.or_(pc.equal(paths, ""), pc.equal(classes, ""))))
    if is_wrong.any():
        line = ", ".join(filter(None, (cell[int(is_wrong.argmax())].as_py() for cell in cells)))
        raise DataError(
            f"{path} (data.labels): the line {line[:200]!r} should have {width} cells, with a path and a "
            "class. A name with a comma needs quotes round it."
        )
    return pa.table({"image": paths, "class": classes}).filter(counts)


def _of_kaggle(path: Path, table: pa.Table) -> pa.Table:
    """With the classes of cells such as ``n03995372 85 1 499 272 n03995372 131 0 499 254``."""
    classes: list[str] = []
    for row in table.to_pylist():
        wnids = set(row["class"].split()[::5])
        if len(wnids) != 1:
            raise DataError(
                f"{path} (data.labels) has boxes of {len(wnids)} classes for {row['image']}: {some(wnids)}."
            )
        classes += wnids
    return pa.table({"image": table["image"], "class": classes})


@contextmanager
def opened_text(path: Path, option: str) -> Iterator[TextIO]:
    """A text file in UTF-8 or, if it begins so, in UTF-16; packed by gzip or not.

    Raises:
        DataError: If it is something else, or cannot be read; names the file and ``option``.
    """
    try:
        with path.open("rb") as file:
            open_text = gzip.open if file.read(2) == b"\x1f\x8b" else open
        with open_text(path, "rb") as file:
            encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with open_text(path, "rt", encoding=encoding, newline="") as lines:
            yield lines
    except DataError:
        raise
    except UnicodeError as error:
        raise DataError(f"{path} ({option}) is no text in UTF-8 ({error}); save it as CSV.") from error
    except (OSError, EOFError, zlib.error, csv.Error, ValueError) as error:
        raise DataError(f"{path} ({option}) cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _rows(lines: Iterable[str], delimiter: str | None) -> Iterator[list[str]]:
    """The cells of each line that is not blank, without empty ones at its end."""
    rows = map(_by_space, lines) if delimiter is None else csv.reader(lines, delimiter=delimiter)
    for row in rows:
        cells = [cell.strip() for cell in row]
        while cells and not cells[-1]:
            del cells[-1]
        if cells:
            yield cells


def _delimiter(head: Sequence[str]) -> str | None:
    """What divides the cells: of what may, what gives headings or, if none does, as many cells in each line."""
    shaped: list[tuple[bool, bool, int, str]] = []
    for delimiter in "\t,;|":
        all_rows = [*_rows(head, delimiter)]
        rows = [row for row in all_rows if not row[0].startswith("#")] or all_rows
        if any(len(row) > 1 for row in rows):
            shaped.append((_columns(rows[0]) is None, len(set(map(len, rows))) > 1, len(shaped), delimiter))
    return min(shaped)[-1] if shaped else None


def _by_space(line: str) -> list[str]:
    """``my cat.jpg great white shark`` in two, at the first space after an image's extension; else at the last."""
    found = re.match(rf"\s*(.+?{image_extension()})\s+(.+)", line)
    return [*found.groups()] if found else line.strip().rsplit(maxsplit=1)


def _columns(row: Sequence[str]) -> tuple[int, int, str] | None:
    """Where path and class stand, and what the class's column is called, if a row holds the headings of a table."""
    heads = [cell.lstrip("# ").lower().replace(" ", "_") for cell in row]
    path = next((heads.index(name) for name in _PATH_COLUMNS if name in heads), None)
    label = next((heads.index(name) for name in _CLASS_COLUMNS if name in heads), None)
    if path is None and not heads[0] and len(heads) > 1:
        # pandas writes an index so; of a series, with 0 for the other heading.
        path, label = 0, label or (1 if heads[1:] == ["0"] else None)
    return None if path is None or label is None or path == label else (path, label, heads[label])


def image_extension() -> str:
    """A pattern of the extensions of images."""
    return rf"\.(?i:{'|'.join(re.escape(extension[1:]) for extension in sorted(image_extensions()))})"
