"""The worst and the best images by each score, and the command that draws them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.results.storage import Rows, numbers_of
from lightning_modules.results.tables import Table, number

N_EXTREMES = 5
"""So many images of each kind are listed."""


def summarize_extremes(table: Rows, better: Mapping[str, str], run: Path) -> dict[str, Any]:
    """Score -> ``worst`` and ``best``, rows of one image each with its ``value``, and the commands that draw them.

    Equal values stand in the order of the rows. Scores of so few rows that all would be listed, or of one value alone,
    are left out.

    Args:
        table: The rows.
        better: Score -> ``higher`` or ``lower``; those that are no numbers of a row, such as curves, are left out.
        run: Their folder, for the commands.
    """
    found = {}
    keys = [name for name in ("path", "method", "eps") if name in table.schema.names]
    for score, direction in better.items():
        if score not in table.schema.names or not pa.types.is_floating(table.schema.field(score).type):
            continue
        values = numbers_of(table[score])
        known = np.flatnonzero(~np.isnan(values))
        if len(known) <= N_EXTREMES or len(np.unique(values[known])) < 2:
            continue
        signed = values[known] if direction == "higher" else -values[known]
        chosen = {"worst": known[signed.argsort(kind="stable")], "best": known[(-signed).argsort(kind="stable")]}
        columns = {name: table[name] for name in keys}
        found[score] = {
            word: {
                "rows": [
                    {**{name: of[int(i)].as_py() for name, of in columns.items()}, "value": float(values[i])}
                    for i in order[:N_EXTREMES]
                ],
                "draw": f"python scripts/look.py {shlex.quote(str(run))} --show {word} {shlex.quote(score)}",
            }
            for word, order in chosen.items()
        }
    return found


def table_of_extremes(extremes: Mapping[str, Any]) -> list[Table]:
    """A table of what :func:`summarize_extremes` found; none where it found nothing."""
    if not extremes:
        return []
    rows = [
        [name, word, "; ".join(map(_in_words, of[word]["rows"]))]
        for score, of in extremes.items()
        for name, word in ((score, "worst"), ("", "best"))
    ]
    command = next(iter(extremes.values()))["worst"]["draw"]
    title = f"The worst and the best images by each score. To draw them: {command}"
    return [Table(["score", "", "images"], rows, title, n_left=3)]


def _in_words(row: Mapping[str, Any]) -> str:
    also = "" if row.get("method") is None else f", {row['method']}"
    eps = "" if row.get("eps") is None else f", eps {format_eps(row['eps'])}"
    return f"{Path(row['path']).name}{also}{eps}: {number(row['value'], '.3g')}"
