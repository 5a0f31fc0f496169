from __future__ import annotations

import io

import pytest
from markdown import markdown
from rich.console import Console

from lightning_modules.results.tables import Table

FROM_OUTSIDE = [
    "*bold* and **bold**",
    "_emphasis_, snake_case",
    "`code`",
    "a|b",
    "[link](http://x)",
    "<b>bold</b> & <script>",
    "C:\\folder\\",
    "\\*",
    ":star:",
    "[red]red[/red]",
    "[/]",
]


def shown_by_rich(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(table.rich())
    return file.getvalue()


@pytest.mark.parametrize("text", FROM_OUTSIDE)
def test_text_from_outside_is_shown_as_it_is(text: str) -> None:
    """As a cell, as the name of a column, and as a title."""
    table = Table(["name", text], [[text, "1"]], title=text)
    html = markdown(table.markdown(), extensions=["markdown.extensions.tables"])  # as TensorBoard does
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{expected}</td>" in html
    assert f">{expected}</th>" in html
    assert shown_by_rich(table).count(text) == 3


def test_a_row_is_a_line() -> None:
    table = Table(["name", "score"], [["two\nlines\x1b[31m", "1"]])
    assert table.markdown().splitlines()[2] == "| two lines [31m | 1 |"
    assert "two lines [31m" in shown_by_rich(table)
    assert "\x1b" not in shown_by_rich(table)


def test_ordinary_text_stays_as_it_was_written() -> None:
    table = Table(["method", "score"], [["SmoothGrad(n_samples=2)", "0.4 [0.3, 0.5] of 80"]])
    assert table.markdown() == "| method | score |\n|---|---:|\n| SmoothGrad(n_samples=2) | 0.4 [0.3, 0.5] of 80 |"


def test_rows_that_belong_together() -> None:
    rows = [["a.jpg", "cat"], ["", "dog"], ["b.jpg", "dog"], ["", "cat"]]
    lines = [line[0] for line in shown_by_rich(Table(["image", "class"], rows, n_left=2)).splitlines()]
    assert lines == ["┏", "┃", "┡", "│", "│", "├", "│", "│", "└"]
    lines = [line[0] for line in shown_by_rich(Table(["image", "class"], rows[::2], n_left=2)).splitlines()]
    assert lines == ["┏", "┃", "┡", "│", "│", "└"]
