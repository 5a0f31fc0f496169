"""The verdicts of judges and victims: their columns in the rows, and what those of judges come to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lightning_modules.results.scores import mean_and_interval, share_with_interval
from lightning_modules.results.tables import Table, number, share

VERDICTS: dict[str, dict[str, pa.DataType]] = {
    "judge": {"probability": pa.float64(), "rank": pa.int64(), "prediction_name": pa.string()},
    "victim": {"success": pa.bool_(), "probability": pa.float64(), "prediction_name": pa.string()},
}
"""What rows hold of a judge, and of a victim: the probability and the rank, 1 = first, of the class that the image was
made to be, or that was attacked; the class that comes first; and whether the attack fools the victim."""


def verdict_columns(name: str, role: str = "judge") -> dict[str, str]:
    """The columns of a judge or victim by what they hold, see :data:`VERDICTS`.

    Example:
        >>> verdict_columns("resnet18")["rank"], verdict_columns("resnet18", "victim")["success"]
        ('judge.resnet18.rank', 'victim.resnet18.success')
    """
    return {what: f"{role}.{name}.{what}" for what in VERDICTS[role]}


def judges_in(columns: Iterable[str], role: str = "judge") -> list[str]:
    """The judges, or victims, that have columns among these.

    Example:
        >>> judges_in(["path", *verdict_columns("resnet18").values()])
        ['resnet18']
    """
    start, end = f"{role}.", ".prediction_name"
    return [
        name.removeprefix(start).removesuffix(end) for name in columns if name.startswith(start) and name.endswith(end)
    ]


def summarize_verdicts(rows: pd.DataFrame, n_classes: Mapping[str, int]) -> dict[str, Any]:
    """Of each judge: of how many images (``n``) it was asked, how many it names rightly first, or among its first five.

    ``top1`` and ``top5`` are the shares, None where it was asked of none; and so is all about the first five of a judge
    that has no more than five classes. ``intervals`` has the 95 % intervals of the shares and of the mean
    ``probability``.

    Args:
        rows: The good rows; those of channels have no verdict.
        n_classes: How many classes each judge has.
    """
    summary = {}
    for judge, n_of_judge in n_classes.items():
        columns = verdict_columns(judge)
        asked = rows.dropna(subset=[columns["rank"]])
        ranks, n = asked[columns["rank"]], len(asked)
        counts = {1: int((ranks <= 1).sum()), 5: int((ranks <= 5).sum()) if n_of_judge > 5 else None}
        of_judge: dict[str, Any] = {"n": n}
        for k, count in counts.items():
            of_judge |= {f"n_top{k}": count, f"top{k}": count / n if n and count is not None else None}
        probability = asked[columns["probability"]]
        of_judge["probability"] = float(probability.mean()) if n else None
        values = {"top1": ranks <= 1, "top5": (ranks <= 5)[: n if n_of_judge > 5 else 0], "probability": probability}
        found = {name: mean_and_interval(of.to_numpy(np.float64)) for name, of in values.items()}
        summary[judge] = of_judge | {"intervals": {name: [of["low"], of["high"]] for name, of in found.items()}}
    return summary


def table_of_verdicts(variants: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """A row for each judge and variant, with what the images cost; no table without judges.

    Args:
        variants: Name -> ``judges``: {judge: see :func:`summarize_verdicts`}, and ``clipped``, ``steps`` and
            ``cpu_seconds``, of which the ``mean`` is shown.
    """
    rows = [
        [
            *(judge, variant, str(of["n"]), _share(of, "top1"), _share(of, "top5"), number(of["probability"], ".4f")),
            share(_mean(numbers, "clipped")),
            *(number(_mean(numbers, name), form) for name, form in (("steps", ".0f"), ("cpu_seconds", ".1f"))),
        ]
        for variant, numbers in variants.items()
        for judge, of in numbers.get("judges", {}).items()
    ]
    header = ["named by", "variant", "n", "first", "in its top five", "mean probability", "clipped", "steps"]
    return [Table([*header, "CPU s an image"], rows, n_left=2)] if rows else []


def _share(of_judge: Mapping[str, Any], name: str) -> str:
    low, high = of_judge.get("intervals", {}).get(name, (None, None))
    return share_with_interval({"mean": of_judge[name], "low": low, "high": high})


def _mean(numbers: Mapping[str, Any], column: str) -> float | None:
    return numbers[column]["mean"] if column in numbers else None


def note_of_verdict(judge: str, of_judge: Mapping[str, Any], *, had_part: bool) -> str:
    """A sentence.

    Example:
        >>> note_of_verdict("resnet18", {"n": 20, "n_top1": 14, "n_top5": 17}, had_part=False)
        'Named by resnet18: 14 of 20 first, 17 in its top five.'
    """
    if not of_judge["n"]:
        return f"{judge} judged nothing: no image of a class was made."
    five = "" if of_judge["n_top5"] is None else f", {of_judge['n_top5']} in its top five"
    own = " It made them itself, so this is no second opinion." if had_part else ""
    return f"Named by {judge}: {of_judge['n_top1']} of {of_judge['n']} first{five}.{own}"


def verdicts(row: Mapping[str, Any]) -> list[str]:
    """What each judge says of the image of a row, in short.

    Example:
        >>> verdicts({"judge.a.rank": 1, "judge.a.probability": 0.871, "judge.a.prediction_name": "tench"})
        ['a #1, 87.1%']
        >>> verdicts({"judge.a.rank": 12, "judge.a.probability": 0.001, "judge.a.prediction_name": "toaster"})
        ['a #12: toaster']
    """
    return [f"{judge} {words}" for judge in judges_in(row) if (words := verdict_of(row, judge)) is not None]


def first_of(row: Mapping[str, Any]) -> str:
    r"""What the first judge names first, then, in a second line, the rank and the probability of the right class.

    Without a judge, the probability that the network which made the image gives it, or a channel's activation.

    Example:
        >>> first_of({"judge.a.rank": 1, "judge.a.probability": 0.871, "judge.a.prediction_name": "tench"})
        'tench\n#1, 87.1%'
        >>> first_of({"judge.a.rank": 12, "judge.a.probability": 0.001, "judge.a.prediction_name": "toaster"})
        'toaster\n#12, 0.1%'
        >>> first_of({"probability": 0.993, "activation": 4.9}), first_of({"probability": None, "activation": 4.9})
        ('p 99.3%', '4.90')
    """
    for judge in judges_in(row):
        probability, rank, name = (row[column] for column in verdict_columns(judge).values())
        if rank is not None:
            return f"{name}\n#{rank}, {probability:.1%}"
    return f"{row['activation']:.2f}" if row["probability"] is None else f"p {row['probability']:.1%}"


def verdict_of(row: Mapping[str, Any], judge: str) -> str | None:
    """What a judge says of the image of a row; None = it was not asked."""
    probability, rank, name = (row[column] for column in verdict_columns(judge).values())
    if rank is None:
        return None
    return f"#{rank}, {probability:.1%}" if rank == 1 else f"#{rank}: {name}"
