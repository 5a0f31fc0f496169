"""Tables of images and classes, as people and programs write them: what divides the cells, and which columns count."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

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
        table = _without_comments(_split(text))
    except pd.errors.ParserError as error:
        raise DataError(f"{path} (data.labels) cannot be read as a table: {error}.") from error
    first = _cells(table, 0)
    columns, width = _columns(first), len(first)
    if columns is not None:
        table = table.iloc[1:]
        if table.empty:
            raise DataError(f"{path} (data.labels) has headings, and no line below them.")
    elif width == 2:
        columns = Columns(0, 1, "")
    else:
        raise DataError(
            f"{path} (data.labels) should be a table with the columns path and class, or of two columns "
            f"without headings; its first line is {', '.join(first)[:200]!r}."
        )
    images, labels = (table[k].str.strip() for k in (columns.path, columns.label))
    is_wrong = (table["n"].to_numpy() > width) | (images == "").to_numpy() | (labels == "").to_numpy()
    if is_wrong.any():
        line = ", ".join(_cells(table, int(is_wrong.argmax())))
        raise DataError(
            f"{path} (data.labels): the line {line[:200]!r} should have {width} cells, with a path and a class. A name "
            "with a comma needs quotes round it."
        )
    return list(zip(images, labels)), columns.heading


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


def _with_sizes(table: pd.DataFrame) -> pd.DataFrame:
    """The lines that are not blank, and as ``n`` how many cells each has without empty ones at its end."""
    is_full = table.apply(lambda column: column.str.strip() != "").to_numpy()
    sizes = np.where(is_full.any(1), table.shape[1] - is_full[:, ::-1].argmax(1), 0)
    return table.assign(n=sizes)[sizes > 0]


def _cells(table: pd.DataFrame, line: int) -> list[str]:
    return table.iloc[line, : table["n"].iloc[line]].tolist()


def _is_comment(table: pd.DataFrame) -> np.ndarray:
    return table[0].str.startswith("#").to_numpy()


def _without_comments(table: pd.DataFrame) -> pd.DataFrame:
    """The lines but for comments, which begin with # and do not have the cells of the others."""
    sizes, is_comment = table["n"].to_numpy(), _is_comment(table)
    counts = np.bincount(sizes[~is_comment] if (~is_comment).any() else sizes[:1])
    table = table[~is_comment | (sizes == counts.argmax())]
    first = _cells(table, 0)
    heading = first[0].lstrip("# ")
    if first[0].startswith("#") and _columns([heading, *first[1:]]) is not None:
        table = table.copy()
        table.iloc[0, 0] = heading
    return table


def _split(text: str) -> pd.DataFrame:
    """The cells of each line that is not blank, by what divides them: of those that may, what gives columns."""
    shaped: list[tuple[bool, bool, int, pd.DataFrame]] = []
    for delimiter in filter(text.__contains__, _DELIMITERS):
        most = max(line.count(delimiter) for line in text.splitlines()) + 1
        table = pd.read_csv(
            io.StringIO(text, newline=""), sep=delimiter, header=None, names=range(most), dtype=str, na_filter=False
        )
        table = _with_sizes(table.fillna(""))
        sizes = table["n"].to_numpy()
        data = ~_is_comment(table) if not _is_comment(table).all() else np.ones(len(table), bool)
        if (sizes[data] == 1).all():
            continue
        has_headings = _columns(_cells(table[data], 0)) is not None
        shaped.append((not has_headings, len(set(sizes[data].tolist())) > 1, len(shaped), table))
    if shaped:
        return min(shaped, key=lambda each: each[:3])[-1]
    # Divided by spaces, of which the path may hold some itself, or the class.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    by_name = [_after_an_image(line) for line in lines]
    rows = by_name if all(by_name) else [line.rsplit(maxsplit=1) for line in lines]
    return _with_sizes(pd.DataFrame(rows).fillna(""))


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
