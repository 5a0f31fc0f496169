"""How near the nearest image lies that fools, from the rows of a run whose attack looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_modules.results.report import SUMMARY, Report
from lightning_modules.results.storage import Rows
from lightning_modules.results.summaries.robustness import Sweep
from lightning_modules.results.tables import Table, number

DISTANCE_FIELD = pa.field("distance", pa.float64())
"""The distance of the nearest image that was found to fool, in the norm of the attack: 0 where the clean one is what
the attack wants, null where nothing was found."""

_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MOST_POINTS = 200


def with_nearest(summary: dict[str, Any], table: Rows, norm: str | int) -> dict[str, Any]:
    """The summary of a robustness run with ``nearest``; as it is where the rows have no ``distance``.

    ``quantiles`` has the distance within which a share of the ``n`` images is fooled that were classified rightly (all,
    where they are unlabelled) and could be fooled; None where nothing was found of too many. ``n_found`` counts those
    of which something was. ``curve`` has the accuracy that is left at each ``distance``, from 0 on: of at most 200.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        table: The rows.
        norm: That of the distance.
    """
    if DISTANCE_FIELD.name not in table.schema.names:
        return summary
    of = Sweep(table)
    distance, top1, success = (of[name][:, 0] for name in (DISTANCE_FIELD.name, "top1", "success"))
    is_attacked = ~np.isnan(success) & (top1 != 0)
    found = np.sort(np.where(np.isnan(distance), np.inf, distance)[is_attacked])
    reached = found[np.isfinite(found)]
    # Unlabelled images count as right.
    n_right, n = int((top1 != 0).sum()), int((~np.isnan(top1)).sum()) or len(top1)
    k = np.unique(np.linspace(0, len(reached), min(_MOST_POINTS, len(reached) + 1)).round().astype(int))
    curve = {
        "distance": np.concatenate([[0.0], reached])[k].tolist(),
        "accuracy": ((n_right - k) / max(n, 1)).tolist(),
    }
    within = np.quantile(found, _SHARES, method="inverted_cdf").tolist() if len(found) else [np.inf] * len(_SHARES)
    quantiles = {f"{share:.0%}": value if np.isfinite(value) else None for share, value in zip(_SHARES, within)}
    nearest = {"norm": norm, "n": len(found), "n_found": len(reached), "quantiles": quantiles, "curve": curve}
    return {**summary, "nearest": nearest}


def with_table_of_nearest(report: Report, summary: Mapping[str, Any]) -> Report:
    """The report with a table of these quantiles, and with their median; as it is without any."""
    if "nearest" not in summary:
        return report
    nearest = summary["nearest"]
    title = (
        f"Distance (norm {nearest['norm']}) of the nearest image that fools, of the {nearest['n']:,} images that could "
        f"be fooled; one was found of {nearest['n_found']:,}"
    )
    rows = [[share, "none found" if of is None else number(of, ".4g")] for share, of in nearest["quantiles"].items()]
    scalars = dict(report.scalars) | {f"{SUMMARY}/median_distance": nearest["quantiles"]["50%"]}
    return replace(report, scalars=scalars, tables=[*report.tables, Table(["of the images", "within"], rows, title)])
