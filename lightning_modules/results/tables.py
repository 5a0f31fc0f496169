"""A table of text that can be shown in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from lightning_modules.text import in_markdown, in_rich, plain_lines

NOTHING = ("", "-")
"""Cells in which nothing stands."""


@dataclass(frozen=True)
class Table:
    """A table of text; whatever its cells hold, such as names of files and classes, nobody takes it for markup.

    Rows and columns of numbers in which nothing stands, such as the accuracy of unlabelled images, are left out.

    Attributes:
        header: Names of the columns.
        rows: Of as many cells each. One whose first cell is empty belongs to the row above.
        title: Stands above it in a terminal.
        n_left: Columns that are aligned to the left, from the first on; the others are numbers.

    Example:
        >>> print(Table(["method", "score"], [["GradCAM", "0.5"]]).markdown())
        | method | score |
        |---|---:|
        | GradCAM | 0.5 |
        >>> Table(["method", "score", "top-1"], [["GradCAM", "0.5", "-"], ["Saliency", "", "-"]])
        Table(header=['method', 'score'], rows=[['GradCAM', '0.5']], title='', n_left=1)
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    n_left: int = 1

    def __post_init__(self) -> None:
        width, rows, name = len(self.header), [], ""
        for row in self.rows:
            name = row[0] or name
            if width <= self.n_left or any(cell not in NOTHING for cell in row[self.n_left :]):
                rows.append([name, *row[1:]])
                name = ""
        shown = [k for k in range(width) if k < self.n_left or any(row[k] not in NOTHING for row in rows)]
        object.__setattr__(self, "header", [self.header[k] for k in shown])
        object.__setattr__(self, "rows", [[row[k] for k in shown] for row in rows])

    def markdown(self) -> str:
        lines = [f"| {' | '.join(map(in_markdown, row))} |" for row in (self.header, *self.rows)]
        rules = ["---" if k < self.n_left else "---:" for k in range(len(self.header))]
        return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])

    def transposed(self) -> Table:
        """The same with its columns as rows.

        Example:
            >>> print(Table(["score", "A", "B"], [["deletion", "0.1", "0.2"]]).transposed().markdown())
            | score | deletion |
            |---|---:|
            | A | 0.1 |
            | B | 0.2 |
        """
        header, *rows = zip(self.header, *self.rows, strict=True)
        return replace(self, header=header, rows=rows, n_left=1)

    def rich(self) -> RichTable:
        columns = [
            Column(in_rich(name), overflow="fold", justify="left")
            if k < self.n_left
            else Column(in_rich(name), overflow="fold", justify="right")
            for k, name in enumerate(self.header)
        ]
        table = RichTable(*columns, title=in_rich(self.title) if self.title else None)
        is_grouped = any(not row[0] for row in self.rows)
        for k, row in enumerate(self.rows):
            ends = k + 1 == len(self.rows) or bool(self.rows[k + 1][0])
            table.add_row(*map(in_rich, row), end_section=is_grouped and ends)
        return table


def share(value: float | None) -> str:
    """A share in percent, or a dash.

    Example:
        >>> share(0.5), share(None)
        ('50.0%', '-')
    """
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None, form: str = ".2f") -> str:
    """A number, or a dash."""
    return "-" if value is None else format(value, form)


def print_tables(tables: Sequence[Table], notes: Sequence[str]) -> None:
    """Prints tables and notes; in wide lines if the output is no terminal."""
    console = Console()
    console = console if console.is_terminal else Console(width=max(140, console.width))
    for table in tables:
        console.print(table.rich())
    for note in notes:
        print(plain_lines(note))
