"""A page and its sections, and the HTML file that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datamodules.writing import written_whole
from lightning_modules.pages.pictures import Picture
from lightning_modules.pages.words import explained_words
from lightning_modules.results.report import Report
from lightning_modules.results.tables import Table
from lightning_modules.text import plain_lines


@dataclass(frozen=True)
class Section:
    """What one command made. Whatever is empty is left out of the page.

    Attributes:
        title: A few words.
        about: What was done, or what is to be seen; instead of what the report says of it.
        commands: As they are typed.
        output: What the command printed, where that is its result.
        report: Counts, tables, notes and the legend of the panels.
        figures: Of the whole run.
        images: That were made.
        panels: A figure of each of some images.
        failures: What could not be computed, and why.
        left_out: Sentences about what the page does not hold, and where that is.
        facts: What made the results.
        settings: All of them, as a file that repeats the run.
    """

    title: str
    about: str = ""
    commands: Sequence[str] = ()
    output: str = ""
    report: Report = field(default_factory=Report)
    figures: Sequence[Picture] = ()
    images: Sequence[Picture] = ()
    panels: Sequence[Picture] = ()
    failures: Sequence[Table] = ()
    left_out: Sequence[str] = ()
    facts: Table | None = None
    settings: str = ""


@dataclass(frozen=True)
class Page:
    """What is written to a file.

    Attributes:
        title: Of the whole.
        lead: What the page is, in a few sentences.
        sections: In the order in which they are read.
    """

    title: str
    lead: str
    sections: Sequence[Section]

    def html(self) -> str:
        """The page as HTML, with all that it shows inside; text of whatever letters stays text."""
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_plain,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        words = explained_words([table for section in self.sections for table in section.report.tables])
        return environment.get_template("page.html").render(page=self, words=words)

    def write(self, path: Path) -> None:
        """Writes the file, which is whole or as it was."""
        with written_whole(path) as aside:
            aside.write_text(self.html(), encoding="utf-8")


def _plain(value: Any) -> Any:
    return plain_lines(value) if type(value) is str else value
