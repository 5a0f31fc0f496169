"""From the rows of a run of activation maximization to its summary, its report and the table of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from lightning_modules.results.report import SCORES, SUMMARY, Report, tag
from lightning_modules.results.storage import Row, Rows
from lightning_modules.results.summaries.verdicts import (
    judges_in,
    note_of_verdict,
    summarize_verdicts,
    table_of_verdicts,
    verdict_columns,
    verdict_of,
)
from lightning_modules.results.tables import Table, number, share
from lightning_modules.synthesis.maximization import VARIANTS

NUMBERS = {
    "activation": ("activation", ".2f"),
    "activation_shifted": ("shifted", ".2f"),
    "probability": ("p", ".4f"),
    "probability_shifted": ("p shifted", ".4f"),
    "total_variation": ("TV", ".4f"),
    "clipped": ("clipped", ".4f"),
}
"""Column of the rows -> what it is called in a table of images, and its format."""

MEASURED = ("seconds", "cpu_seconds")
"""Columns of times: of the clock, and of all cores, which does not count what else the machine does."""

LEGEND = (
    "Each figure shows how one image grew: above, what it was after so many steps, from noise on; below, step by step, "
    "how strongly the network responds to it (activation, blue; it should rise) and how much its neighbouring pixels "
    "differ (total variation, orange and dashed; smooth images have little)."
)

COLUMNS = (*NUMBERS, *MEASURED)
MOST_ROWS = 32


def summarize_synthesis(table: Rows, judges: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Counts, and for each variant the mean, least and greatest of each number, and what the judges made of it.

    Args:
        table: The rows.
        judges: Name -> ``n_classes``, and ``had_part``: whether the judge made the images itself.
    """
    judged = [column for judge in judges or () for column in verdict_columns(judge).values()]
    names = {"status", "variant", "steps", *COLUMNS, *judged}
    frame = pa.table({name: table[name] for name in table.schema.names if name in names}).to_pandas()
    good = frame[frame["status"] == "ok"]
    summaries = {}
    for variant in [name for name in VARIANTS if (good["variant"] == name).any()]:
        rows = good[good["variant"] == variant]
        columns = {name: rows[name].dropna() for name in (*COLUMNS, "steps") if name in rows}
        summaries[variant] = {"n": len(rows)} | {
            name: {"mean": float(values.mean()), "min": float(values.min()), "max": float(values.max())}
            for name, values in columns.items()
            if len(values)
        }
        if judges:
            n_classes = {judge: facts["n_classes"] for judge, facts in judges.items()}
            summaries[variant]["judges"] = summarize_verdicts(rows, n_classes)
    counts = {"n_images": len(frame), "n_failed": len(frame) - len(good)}
    return {**counts, **({"judges": judges} if judges else {}), "variants": summaries}


def report_synthesis(summary: dict[str, Any], further_notes: Sequence[str] = ()) -> Report:
    """The report of a summary: the mean of each number, for each variant, the judges' shares, and further notes."""
    scalars: dict[str, float | None] = {f"{SUMMARY}/{name}": summary[name] for name in ("n_images", "n_failed")}
    rows = []
    for variant, numbers in summary["variants"].items():
        means = {name: numbers[name]["mean"] for name in COLUMNS if name in numbers}
        scalars |= {tag(SCORES, name, variant): mean for name, mean in means.items()}
        shown = (*NUMBERS, "seconds")
        cells = [f"{means[name]:.4f} ({_worst(name, numbers[name]):.4f})" if name in means else "-" for name in shown]
        rows.append([variant, str(numbers["n"]), *cells])
        for judge, of in numbers.get("judges", {}).items():
            scalars |= {tag(SCORES, f"judge.{judge}.{name}", variant): of[name] for name in ("top1", "top5")}
    header = ["mean over images (worst)", "n", *(name for name, _ in NUMBERS.values()), "seconds"]
    tables = [Table(header, rows), *table_of_verdicts(summary["variants"])]
    return Report.from_summary(summary, scalars, tables, [*_notes(summary), *further_notes], LEGEND)


def _notes(summary: Mapping[str, Any]) -> list[str]:
    """What the judges say of the images that nothing was left out of."""
    of_judges = summary["variants"].get(VARIANTS[-1], {}).get("judges", {})
    had_part = {judge: facts["had_part"] for judge, facts in summary.get("judges", {}).items()}
    return [note_of_verdict(judge, of, had_part=had_part[judge]) for judge, of in of_judges.items()]


def _worst(column: str, numbers: Mapping[str, float]) -> float:
    """Of a number of several images, that of the worst: the least, or of what should be little the greatest."""
    return numbers["max" if column in ("total_variation", "clipped", *MEASURED) else "min"]


def label_of_variant(variant: str, numbers: Mapping[str, Any]) -> str:
    """What a figure says of a variant, in lines: its name, the judges' shares or else the network's, and the means.

    Args:
        variant: Its name.
        numbers: Of the summary, see :func:`summarize_synthesis`.
    """
    shares = [
        f"{judge}: {share(of['top1'])} first\n{share(of['top5'])} in five, p {number(of['probability'], '.3f')}"
        for judge, of in numbers.get("judges", {}).items()
        if of["n"]
    ]
    own = [
        f"{NUMBERS[name][0]} {numbers[name]['mean']:.4f}" for name in NUMBERS if name in numbers and name != "clipped"
    ]
    costs = [f"clipped {share(numbers['clipped']['mean'])}", f"CPU {numbers['cpu_seconds']['mean']:.1f} s an image"]
    return "\n".join([variant, *(shares or own), *costs])


def table_of_images(rows: Sequence[Row]) -> Table:
    """The numbers of the images; of many, those that hold least under fresh shifts.

    Args:
        rows: The rows of a run.
    """
    good = [row for row in rows if row["status"] == "ok"]
    title = "Images"
    if len(good) > MOST_ROWS:
        title = f"The {MOST_ROWS} of {len(good)} images that hold least under fresh shifts"
        good = sorted(good, key=_strength)[:MOST_ROWS]
    else:
        good = sorted(good, key=lambda row: (row["name"], row["seed"], VARIANTS.index(row["variant"])))
    judges = judges_in(good[0]) if good else []
    several_variants, several_seeds = (len({row[name] for row in good}) > 1 for name in ("variant", "seed"))
    cells = []
    for row in good:
        label = row["name"] + f", seed {row['seed']}" * several_seeds + f": {row['variant']}" * several_variants
        numbers = [number(row[name], form) for name, (_, form) in NUMBERS.items()]
        of_judges = [verdict_of(row, judge) or "-" for judge in judges]
        cells.append([label, *numbers, *of_judges, number(row["seconds"], ".1f")])
    return Table(["image", *(name for name, _ in NUMBERS.values()), *judges, "seconds"], cells, title)


def tables_of_failures(rows: Sequence[Row]) -> list[Table]:
    """What could not be made, and why; no table if all could."""
    failed = [[row["path"], row["error"]] for row in rows if row["status"] != "ok"]
    return [Table(["failed", "why"], failed)] if failed else []


def _strength(row: Row) -> float:
    held = row["probability_shifted"]
    return row["activation_shifted"] if held is None else held
