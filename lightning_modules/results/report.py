"""What a run has to say, apart from how it is shown: numbers, tables and sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_modules.options import plain_name
from lightning_modules.results.scores import share_with_interval
from lightning_modules.results.tables import Table, share

RUN, SUMMARY, SCORES, CURVES, IMAGES = "1_whole_run", "2_summary", "3_scores", "4_curves", "5_images"
"""Groups of TensorBoard's tags. It sorts them by name, so the first screen shows the figures of the whole run."""

MOST_CLASSES = 5
"""Of so many classes at the most it is listed how badly they were classified."""


@dataclass(frozen=True)
class Report:
    """What a run has to say, the same tags whatever its settings, so that runs can be laid over each other.

    Attributes:
        scalars: Tag -> number; None is left out. What has few points, such as a sweep of budgets, has a tag for each:
            TensorBoard smooths curves, and would draw other numbers than there are.
        summary: Has the counts of images, and their accuracy.
        tables: For the terminal, TensorBoard and the page; :attr:`all_tables` has those of every run too.
        notes: Sentences about what stands out, for the terminal; :attr:`all_notes` has those of every run too.
        legend: How to read the figure of a single image, for who has never seen one.
    """

    scalars: Mapping[str, float | None]
    summary: Mapping[str, Any]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    legend: str = ""

    @property
    def all_tables(self) -> list[Table]:
        """Those that have rows, and the classes of which most images were classified wrongly."""
        return [table for table in (*self.tables, _worst_classes(self.summary)) if table.rows]

    @property
    def all_notes(self) -> list[str]:
        """What stands out, in this run and in the images of any."""
        return [*self.notes, *image_notes(self.summary)]

    def markdown(self) -> str:
        """How many images there were, and the tables."""
        return "\n\n".join([describe_images(self.summary), *(table.markdown() for table in self.all_tables)])


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
    of_all = f" of {summary['n_listed']:,}" if n_left_out(summary) else ""
    line = f"{summary['n_images']:,}{of_all} image{'s' * (summary['n_images'] != 1 or bool(of_all))}"
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
    """How many of the images that a run is of have no rows, as far as they were counted."""
    return max(0, (summary.get("n_listed") or 0) - summary["n_images"])


def image_notes(summary: Mapping[str, Any]) -> list[str]:
    """What may be otherwise than meant in the images of a run, from the counts in its summary.

    Example:
        >>> image_notes({"n_images": 3, "n_unturned": 1, "file_notes": {}})[0].partition(",")[0]
        '1 image asks by its EXIF orientation to be turned'
    """
    limited = (
        f"A limit (--trainer.limit_test_batches) left out {n:,} of {summary['n_listed']:,} images. The same command "
        "without it goes on with them."
        if (n := n_left_out(summary))
        else ""
    )
    unturned = unturned_note(summary.get("n_unturned", 0), "--data.exif_orientation true")
    told = [f"{n:,} image{'s' if n > 1 else ''}: {note}." for note, n in summary.get("file_notes", {}).items()]
    return [*(note for note in (limited, unturned) if note), *told]


def unturned_note(n: int, option: str) -> str:
    """That ``n`` images ask to be turned and were not, and the option that turns them; empty where there are none."""
    if not n:
        return ""
    ask = "images ask by their EXIF orientation" if n > 1 else "image asks by its EXIF orientation"
    return (
        f"{n:,} {ask} to be turned, and the network saw {'them' if n > 1 else 'it'} unturned, as published ImageNet "
        f"numbers do. What turns {'them' if n > 1 else 'it'}: {option}"
    )


def image_scalars(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """The numbers that every summary of images has, under the same tags."""
    names = {"accuracy_top1": "top1", "accuracy_top5": "top5", "accuracy_mean_over_classes": "balanced_acc"}
    names |= {name: name for name in ("n_images", "n_failed")}
    return {f"{SUMMARY}/{name}": summary.get(key) for name, key in names.items()}


def _worst_classes(summary: Mapping[str, Any]) -> Table:
    """Of several classes those that were classified worst; no rows where all are right."""
    classes = summary.get("classes", ())
    wrong = sorted((each for each in classes if each["top1"] < 1), key=lambda each: each["top1"])
    shown = wrong[:MOST_CLASSES] if len(classes) > 1 else []
    rows = [[f"{each['name']}", share(each["top1"]), f"{each['n']:,}"] for each in shown]
    return Table(["class", "top-1", "images"], rows, f"The worst of {len(classes):,} classes")


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
