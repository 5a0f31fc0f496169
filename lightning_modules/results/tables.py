"""A table of text that can be shown in a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Column
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Table:
    """A table of text; whatever its cells hold, nobody takes it for markup.

    Attributes:
        header: Names of the columns; all but the first are aligned to the right.
        rows: Of as many cells each.
        title: Stands above it in a terminal.

    Example:
        >>> print(Table(["method", "score"], [["GradCAM", "0.5"]]).markdown())
        | method | score |
        |---|---:|
        | GradCAM | 0.5 |
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (self.header, *self.rows)]
        rule = "|".join(["---", *["---:"] * (len(self.header) - 1)])
        return "\n".join(f"| {line} |" if k else f"| {line} |\n|{rule}|" for k, line in enumerate(lines))

    def rich(self) -> RichTable:
        first, *others = map(escape, self.header)
        columns = [Column(first, overflow="fold"), *(Column(name, justify="right") for name in others)]
        table = RichTable(*columns, title=escape(self.title) or None)
        for row in self.rows:
            table.add_row(*map(escape, row))
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
