"""The report of a run: its numbers, tables and sentences, which terminal, TensorBoard and page show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from datamodules.writing import written_whole
from lightning_modules.results.scores import share_with_interval
from lightning_modules.results.tables import Table, print_tables, share
from lightning_modules.text import plain_name

FILE = "report.json"

RUN, SUMMARY, SCORES, CURVES, IMAGES = "1_whole_run", "2_summary", "3_scores", "4_curves", "5_images"
"""Groups of TensorBoard's tags. It sorts them by name, so the first screen shows the figures of the whole run."""

MOST_CLASSES = 5
"""The report lists so many of the classes that were classified worst."""


@dataclass(frozen=True)
class Report:
    """The report of a run. Its tags are the same whatever the settings, so that runs can be laid over each other.

    Attributes:
        about: What the script does, in a sentence.
        counts: How many images there were, and how well they were classified.
        tables: The numbers of the whole run.
        notes: Sentences about what stands out.
        legend: How to read the figure of a single image, for a reader who has never seen one.
        scalars: TensorBoard's tag -> number; None is left out. A sweep of budgets has a tag for each: TensorBoard
            smooths curves, and would draw other numbers than there are.
        details: Tables of single images.
    """

    about: str = ""
    counts: str = ""
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    legend: str = ""
    scalars: Mapping[str, float | None] = field(default_factory=dict)
    details: Sequence[Table] = ()

    @classmethod
    def from_summary(
        cls,
        summary: Mapping[str, Any],
        scalars: Mapping[str, float | None],
        tables: Sequence[Table],
        notes: Sequence[str] = (),
        legend: str = "",
    ) -> Self:
        """The report of a summary of images, with the worst classes and notes on the images added to what is given."""
        tables = [table for table in (*tables, _worst_classes(summary)) if table.rows]
        return cls("", describe_images(summary), tables, [*notes, *image_notes(summary)], legend, scalars)

    def markdown(self) -> str:
        """How many images there were, and the tables."""
        return "\n\n".join([self.counts, *(table.markdown() for table in self.tables)])

    def show(self) -> None:
        """Prints the tables, the notes and the counts."""
        print_tables([*self.details, *self.tables], self.notes)
        print(self.counts)

    def save(self, run: Path) -> None:
        """Writes it to the folder of a run."""
        with written_whole(run / FILE) as aside:
            aside.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, run: Path) -> Self:
        """The report in the folder of a run; an empty one if the run has not finished."""
        if not (run / FILE).exists():
            return cls()
        saved = json.loads((run / FILE).read_text(encoding="utf-8"))
        tables = {name: [Table(**table) for table in saved[name]] for name in ("tables", "details")}
        return cls(**{**saved, **tables})


def describe_images(summary: Mapping[str, Any]) -> str:
    """How many images there were, and how well they were classified.

    Example:
        >>> describe_images({"n_images": 1000, "n_failed": 1, "top1": 0.7, "top5": 0.9})
        '1,000 images, of which 1 failed (status and error in the rows); accuracy top-1 70.0%, top-5 90.0%'
        >>> describe_images({"n_listed": 9, "n_images": 4, "n_failed": 0})
        '4 of 9 images'
        >>> describe_images({"n_images": 8, "n_failed": 0, "top1": 0.75, "balanced_acc": 0.5})
        '8 images; accuracy top-1 75.0% (mean over classes 50.0%)'
    """
    total = f" of {summary['n_listed']:,}" if n_left_out(summary) else ""
    line = f"{summary['n_images']:,}{total} image{'s' * (summary['n_images'] != 1 or bool(total))}"
    if summary["n_failed"]:
        line += f", of which {summary['n_failed']:,} failed (status and error in the rows)"
    if summary.get("top1") is not None:
        line += f"; accuracy top-1 {_accuracy(summary, 'top1')}"
        if (balanced := share(summary.get("balanced_acc"))) not in ("-", share(summary["top1"])):
            line += f" (mean over classes {balanced})"
    if summary.get("top5") is not None:
        line += f", top-5 {_accuracy(summary, 'top5')}"
    return line


def _accuracy(summary: Mapping[str, Any], name: str) -> str:
    low, high = summary.get("intervals", {}).get(name, (None, None))
    return share_with_interval({"mean": summary[name], "low": low, "high": high})


def n_left_out(summary: Mapping[str, Any]) -> int:
    """How many images of the run have no rows, as far as they were counted."""
    return max(0, (summary.get("n_listed") or 0) - summary["n_images"])


def image_notes(summary: Mapping[str, Any]) -> list[str]:
    """Notes on what may be wrong with the images of a run, from the counts in its summary.

    Example:
        >>> image_notes({"n_images": 3, "n_unturned": 1, "file_notes": {}})[0].partition(",")[0]
        '1 image asks by its EXIF orientation to be turned'
    """
    notes = []
    if n := n_left_out(summary):
        notes.append(
            f"A limit (--trainer.limit_test_batches) left out {n:,} of {summary['n_listed']:,} images. The same "
            "command without it goes on with them."
        )
    if n := summary.get("n_unturned", 0):
        notes.append(unturned_note(n))
    return notes + [f"{n:,} image{'s' if n > 1 else ''}: {note}." for note, n in summary.get("file_notes", {}).items()]


def unturned_note(n: int, option: str = "--data.exif_orientation true") -> str:
    """That ``n`` images, at least 1, ask to be turned and were not, and the ``option`` that turns them."""
    ask, them = ("images ask by their", "them") if n > 1 else ("image asks by its", "it")
    return (
        f"{n:,} {ask} EXIF orientation to be turned, and the network saw {them} unturned, as published ImageNet "
        f"numbers do. What turns {them}: {option}"
    )


def image_scalars(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers that every summary of images has, under the same tags."""
    names = {"accuracy_top1": "top1", "accuracy_top5": "top5", "accuracy_mean_over_classes": "balanced_acc"}
    names |= {name: name for name in ("n_images", "n_failed")}
    return {f"{SUMMARY}/{name}": summary.get(key) for name, key in names.items()}


def _worst_classes(summary: Mapping[str, Any]) -> Table:
    """The classes that were classified worst, of several; no rows if all are right."""
    classes = summary.get("classes", ())
    wrong = sorted((each for each in classes if each["top1"] < 1), key=lambda each: each["top1"])
    shown = wrong[:MOST_CLASSES] if len(classes) > 1 else []
    rows = [[f"{each['name']}", share(each["top1"]), f"{each['n']:,}"] for each in shown]
    return Table(["class", "top-1", "images"], rows, f"The worst of {len(classes):,} classes")


def first_paragraph(description: str) -> str:
    """The first paragraph of a script's description, in one line."""
    return " ".join(description.strip().partition("\n\n")[0].split())


def tag(*parts: str) -> str:
    """A tag of TensorBoard's from its group and names, which may hold any letters.

    Example:
        >>> tag("3_scores", "energy_in_box", "SmoothGrad(n_samples=2)")
        '3_scores/energy_in_box/SmoothGrad_n_samples_2'
    """
    return "/".join(plain_name(part).strip("_") for part in parts)


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | str | float]:
    """Settings as TensorBoard takes hyperparameters: dotted names and plain values; lists as JSON, null left out.

    Example:
        >>> flat_settings({"model": {"eps": [0.1], "attack": None, "n_figures": 2}})
        {'model.eps': '[0.1]', 'model.n_figures': 2}
    """
    settings: dict[str, bool | str | float] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            settings |= flat_settings(value, f"{prefix}{name}.")
        elif value is not None:
            settings[f"{prefix}{name}"] = value if isinstance(value, bool | str | int | float) else json.dumps(value)
    return settings
