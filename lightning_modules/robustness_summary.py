"""Reduces the rows of a robustness run to its summary."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa

from lightning_modules.rows import summarize_images

RANK_CORRELATION = ".rank_correlation"
TOP_OVERLAP = ".top_overlap"
"""After a method's name: the columns of how far its map moved."""


def summarize_robustness(table: pa.Table) -> dict[str, Any]:
    """Summary of the rows of a run, an image and budget each (0 = clean).

    ``clean_acc`` and each ``robust_acc`` are shares of the labelled images. ``attack_success_rate`` and
    ``median_smallest_eps`` are over the ``n_attacked`` images that were classified rightly (all, where they are
    unlabelled) and could be fooled; the median is None where half of them or more withstand the whole sweep. The
    similarities of a method are means over the ``n`` images of which neither map is empty.
    """
    frame = table.to_pandas()
    good = frame[frame["status"] == "ok"]
    clean = good[good["eps"] == 0]
    # Unlabelled images have no top1; nobody knows that they are wrong.
    rightly = clean.loc[clean["top1"].ne(False) & clean["success"].notna(), "path"]
    images = summarize_images(frame)
    attacked = good[good["path"].isin(rightly)]
    return {
        **images,
        "clean_acc": images["top1"],
        "clean_acc_top5": images["top5"],
        "n_attacked": len(rightly),
        "n_saturated": int(clean["saturated"].astype(bool).sum()),
        "n_vanished": int(clean["vanished"].astype(bool).sum()),
        "median_smallest_eps": _median_smallest(attacked[attacked["eps"] == 0]),
        "sweep": [
            _at_budget(float(eps), rows, attacked[attacked["eps"] == eps])
            for eps, rows in good[good["eps"] > 0].groupby("eps")
        ],
    }


def _at_budget(eps: float, rows: pd.DataFrame, attacked: pd.DataFrame) -> dict[str, Any]:
    methods = [name.removesuffix(RANK_CORRELATION) for name in rows.columns if name.endswith(RANK_CORRELATION)]
    return {
        "eps": eps,
        "robust_acc": _mean(rows["top1"]),
        "robust_acc_top5": _mean(rows["top5"]),
        "attack_success_rate": _mean(attacked["success"]),
        "linf": _mean(rows["linf"]),
        "l2": _mean(rows["l2"]),
        "methods": {
            name: {
                "rank_correlation": _mean(rows[name + RANK_CORRELATION]),
                "top_overlap": _mean(rows[name + TOP_OVERLAP]),
                "n": int(rows[name + RANK_CORRELATION].count()),
            }
            for name in methods
        },
    }


def _mean(values: pd.Series) -> float | None:
    values = values.dropna().astype(float)
    return float(values.mean()) if len(values) else None


def _median_smallest(clean: pd.DataFrame) -> float | None:
    """Images that no budget fools count as infinitely robust."""
    median = clean["smallest_eps"].astype(float).fillna(float("inf")).median()
    return float(median) if median < float("inf") else None
