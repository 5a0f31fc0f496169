from __future__ import annotations

import io

import pytest
from markdown import markdown
from rich.console import Console
from rich.text import Text

from lightning_modules.results.tables import Table
from tests.lightning_modules.test_text import FROM_OUTSIDE, STEERING


def shown_by_rich(table: Table) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(table.rich())
    return file.getvalue()


@pytest.mark.parametrize("text", FROM_OUTSIDE.values(), ids=FROM_OUTSIDE)
def test_text_from_outside_is_shown_as_it_is(text: str) -> None:
    """As a cell, as the name of a column, and as a title."""
    table = Table(["name", text], [[text, "1"]], title=text)
    html = markdown(table.markdown(), extensions=["markdown.extensions.tables"])  # as TensorBoard does
    expected = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert f"<td>{expected}</td>" in html
    assert f">{expected}</th>" in html
    assert shown_by_rich(table).count(text) == 3


@pytest.mark.parametrize(("text", "expected"), STEERING.values(), ids=STEERING)
def test_a_row_is_a_line(text: str, expected: str) -> None:
    table = Table(["name", "score"], [[text, "1"]])
    assert table.rich().columns[0]._cells == [Text(expected)]
    html = markdown(table.markdown(), extensions=["markdown.extensions.tables"])
    assert f"<td>{expected.strip()}</td>" in html
    assert len(table.markdown().splitlines()) == 3
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


def test_columns_as_rows() -> None:
    table = Table(["score", "A", "B"], [["x", "1", "2"], ["y", "3", "4"]], title="t")
    turned = table.transposed()
    assert turned.title == "t"
    assert turned.markdown() == "| score | x | y |\n|---|---:|---:|\n| A | 1 | 3 |\n| B | 2 | 4 |"
    assert turned.transposed().markdown() == table.markdown()


def test_rows_and_columns_in_which_nothing_stands_are_left_out() -> None:
    rows = [["0", "-", "", "-"], ["1/255", "-", "0", "3.0%"], ["2/255", "-", "-", ""]]
    table = Table(["eps", "top-1", "n", "success"], rows)
    assert (table.header, table.rows) == (["eps", "n", "success"], [["1/255", "0", "3.0%"]])
    assert Table(["eps", "top-1"], [["0", "-"]]).rows == []
    # A group keeps its name where its first row goes.
    grouped = Table(["score", "method", "mean"], [["x", "A", "-"], ["", "B", "1"], ["", "C", "2"]], n_left=2)
    assert grouped.rows == [["x", "B", "1"], ["", "C", "2"]]
    # Text is no number: a file that failed without a reason stays.
    assert Table(["failed", "why"], [["a.jpg", ""]], n_left=2).rows == [["a.jpg", ""]]
