"""Tables of images and classes, as people and programs write them: what divides the cells, and which columns count."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datamodules.errors import DataError
from datamodules.images.formats import extension_of, image_extensions

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

_DELIMITERS = "\t,;|"

_BOMS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""How text begins that spreadsheets save as "Unicode"."""

_OTHERS = {
    b"PK\x03\x04": "a spreadsheet or a zip archive",
    b"PAR1": "a Parquet file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
}


class Columns(NamedTuple):
    """Where in a row the path and the class stand, and what the column of the class is called, "" = nothing."""

    path: int
    label: int
    heading: str


def read_text(path: Path, option: str) -> str:
    """A text file in UTF-8 or, if it begins so, in UTF-16; packed by gzip or not.

    Raises:
        DataError: If it is something else, or cannot be read; names the file and ``option``.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} ({option}) cannot be read: {reason}.") from error
    if other := next((kind for begin, kind in _OTHERS.items() if content.startswith(begin)), None):
        raise DataError(f"{path} ({option}) is {other}; it should be text: save it as CSV.")
    try:
        return content.decode(_BOMS.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} ({option}) is no text in UTF-8: {error.reason}.") from error


def table_of(text: str, path: Path) -> tuple[list[tuple[str, str]], str]:
    """Pairs of path and class as a table has them, and what the column of the class is called, "" = nothing.

    Args:
        text: All of the table. Lines that begin with ``#`` and do not have its cells are comments.
        path: Of the file, for messages.

    Raises:
        DataError: If it is no such table.
    """
    _refuse_json(text, path)
    try:
        rows = _rows(text)
    except csv.Error as error:
        raise DataError(f"{path} (data.labels) cannot be read as a table: {error}.") from error
    columns = _columns(rows[0])
    width = len(rows[0])
    if columns is not None:
        rows = rows[1:]
        if not rows:
            raise DataError(f"{path} (data.labels) has headings, and no line below them.")
    elif width == 2:
        columns = Columns(0, 1, "")
    else:
        raise DataError(
            f"{path} (data.labels) should be a table with the columns path and class, or of two columns "
            f"without headings; its first line is {', '.join(rows[0])[:200]!r}."
        )
    found = []
    for row in rows:
        cells = row + [""] * (width - len(row))
        image, label = cells[columns.path].strip(), cells[columns.label].strip()
        if len(cells) != width or not image or not label:
            raise DataError(
                f"{path} (data.labels): the line {', '.join(row)[:200]!r} should have {width} cells, with a path and a "
                "class. A name with a comma needs quotes round it."
            )
        found.append((image, label))
    return found, columns.heading


def _refuse_json(text: str, path: Path) -> None:
    text = text.strip()
    if text[:1] not in ("{", "["):
        return
    for part in (text, text.partition("\n")[0]):  # all, or a line for each image
        try:
            json.loads(part)
        except ValueError:
            continue
        raise DataError(
            f"{path} (data.labels) is JSON; it should be a table, CSV or TSV, with the columns path and class."
        )


def _rows(text: str) -> list[list[str]]:
    """The cells of all lines but blank ones and comments, without empty cells that all lines end with."""
    rows = _split(text)
    sizes = Counter(len(row) for row in rows if not row[0].startswith("#"))
    width = sizes.most_common(1)[0][0] if sizes else len(rows[0])
    rows = [row for row in rows if not row[0].startswith("#") or len(row) == width]
    if rows[0][0].startswith("#") and _columns([rows[0][0].lstrip("# "), *rows[0][1:]]) is not None:
        rows[0] = [rows[0][0].lstrip("# "), *rows[0][1:]]
    return rows


def _split(text: str) -> list[list[str]]:
    """The cells of each line that is not blank, by what divides them: of those that may, what gives columns."""
    shaped: list[tuple[bool, bool, int, list[list[str]]]] = []
    for delimiter in filter(text.__contains__, _DELIMITERS):
        rows = [_trimmed(row) for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]
        rows = [row for row in rows if row]
        data = [row for row in rows if not row[0].startswith("#")] or rows
        if all(len(row) == 1 for row in data):
            continue
        has_headings = _columns(data[0]) is not None
        shaped.append((not has_headings, len({len(row) for row in data}) > 1, len(shaped), rows))
    if shaped:
        return min(shaped)[-1]
    # Divided by spaces, of which the path may hold some itself, or the class.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    by_name = [_after_an_image(line) for line in lines]
    if all(by_name):
        return [row for row in by_name if row]
    return [line.rsplit(maxsplit=1) for line in lines]


def _trimmed(row: Sequence[str]) -> list[str]:
    """A row without the empty cells at its end, which spreadsheets write; [] = it is blank."""
    if row and row[-1].strip():
        return list(row)
    cells = list(row)
    while cells and not cells[-1].strip():
        cells.pop()
    return cells


def _after_an_image(line: str) -> list[str] | None:
    """``my cat.jpg great white shark`` in two, at the first space after an image's extension."""
    for gap in re.finditer(r"\s+", line):
        if extension_of(line[: gap.start()]) in image_extensions():
            return [line[: gap.start()], line[gap.end() :]]
    return None


def _columns(row: Sequence[str]) -> Columns | None:
    """Where path and class stand, if a row holds the headings of a table."""
    heads = [cell.strip().lower().replace(" ", "_") for cell in row]
    path = next((heads.index(name) for name in _PATH_COLUMNS if name in heads), None)
    label = next((heads.index(name) for name in _CLASS_COLUMNS if name in heads), None)
    if path is None and not heads[0] and len(heads) > 1:
        # pandas writes an index so; of a series, with 0 for the other heading.
        path, label = 0, label or (1 if heads[1:] == ["0"] else None)
    return None if path is None or label is None or path == label else Columns(path, label, heads[label])
