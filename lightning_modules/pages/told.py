"""What a run said at its end, kept beside its rows: laying it out again needs no network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lightning_modules.results.report import Report, describe_images
from lightning_modules.results.tables import Table
from lightning_modules.whole_files import written_whole

NAME = "report.json"


@dataclass(frozen=True)
class Told:
    """What a run said at its end.

    Attributes:
        about: What the script does, in a sentence.
        counts: How many images there were, and how well they were classified.
        tables: Those of the whole run, then those of single images.
        notes: Sentences about what stands out.
        legend: How to read the figure of a single image.
    """

    about: str = ""
    counts: str = ""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    legend: str = ""

    @classmethod
    def by(cls, report: Report, details: Sequence[Table], description: str) -> Self:
        """What a report says, by a script of this description, of which the first paragraph counts."""
        about = " ".join(description.strip().partition("\n\n")[0].split())
        return cls(
            about, describe_images(report.summary), [*report.all_tables, *details], report.all_notes, report.legend
        )

    def save(self, run: Path) -> None:
        """Writes it to a run's folder."""
        with written_whole(run / NAME) as aside:
            aside.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, run: Path) -> Self:
        """What the run in this folder said; nothing, where it has not come to its end."""
        if not (run / NAME).exists():
            return cls()
        told = json.loads((run / NAME).read_text(encoding="utf-8"))
        return cls(**{**told, "tables": [Table(**table) for table in told["tables"]]})
