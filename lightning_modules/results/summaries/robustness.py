"""Reduces the rows of a robustness run to its summary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.results.report import SCORES, SUMMARY, Report, image_scalars, tag
from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.stored import codes_of, numbers_of
from lightning_modules.results.scores import mean_or_none
from lightning_modules.results.summaries.images import summarize_images
from lightning_modules.results.summaries.transfer import notes_of_victims, transfer_rates
from lightning_modules.results.tables import Table, number, share

RANK_CORRELATION = ".rank_correlation"
TOP_OVERLAP = ".top_overlap"
"""After a method's name: the columns of how far its map moved."""

LEGEND = (
    "Each figure shows one image: as it is, what the attack adds to it (made stronger, so that it can be seen), and "
    "the attacked image, each with the class that the network finds most probable. The curves show how the "
    "probabilities change while the attack grows. The maps at the right show where the network looks before and after "
    "the attack."
)


def summarize_robustness(table: Rows, budgets: Sequence[float] = ()) -> dict[str, Any]:
    """Summary of the rows of a run, an image and budget each (0 = clean).

    ``clean_acc`` and each ``robust_acc`` are shares of the labelled images. ``attack_success_rate`` and
    ``median_smallest_eps`` are over the ``n_attacked`` images that were classified rightly (all, where they are
    unlabelled) and could be fooled; the median is None where half of them or more withstand the whole sweep. The
    similarities of a method are means over the ``n`` images of which neither map is empty. ``written`` says a budget
    as it was typed.

    Args:
        table: The rows.
        budgets: Those of the sweep.
    """
    written = {float(eps): format_eps(eps) for eps in budgets}
    images = summarize_images(table)
    path, eps = codes_of(table["path"])[0], numbers_of(table["eps"])
    is_good = pc.equal(table["status"], "ok").to_numpy()
    is_clean = is_good & (eps == 0)
    success = numbers_of(table["success"])
    # Unlabelled images have no top1; nobody knows that they are wrong.
    rightly = np.unique(path[is_clean & (numbers_of(table["top1"]) != 0) & ~np.isnan(success)])
    is_attacked = is_good & np.isin(path, rightly)
    places = {float(value): np.flatnonzero(is_good & (eps == value)) for value in np.unique(eps[is_good & (eps > 0)])}
    sweep: list[dict[str, Any]] = [
        {"eps": value, "written": written.get(value, format_eps(value)), "methods": {}} for value in places
    ]

    # One column after the other, so that one at a time lies in the memory.
    for column, name in (("robust_acc", "top1"), ("robust_acc_top5", "top5"), ("linf", "linf"), ("l2", "l2")):
        values = numbers_of(table[name])
        for of_budget, of in zip(sweep, places.values()):
            of_budget[column] = mean_or_none(values[of])
    for of_budget, of in zip(sweep, places.values()):
        of_budget["attack_success_rate"] = mean_or_none(success[of[is_attacked[of]]])
    for method in [
        name.removesuffix(RANK_CORRELATION) for name in table.schema.names if name.endswith(RANK_CORRELATION)
    ]:
        correlation, overlap = (numbers_of(table[method + suffix]) for suffix in (RANK_CORRELATION, TOP_OVERLAP))
        for of_budget, of in zip(sweep, places.values()):
            of_budget["methods"][method] = {
                "rank_correlation": mean_or_none(correlation[of]),
                "top_overlap": mean_or_none(overlap[of]),
                "n": int((~np.isnan(correlation[of])).sum()),
            }
    return {
        **images,
        "clean_acc": images["top1"],
        "clean_acc_top5": images["top5"],
        "n_attacked": len(rightly),
        "n_saturated": int(np.nansum(numbers_of(table["saturated"])[is_clean])),
        "n_vanished": int(np.nansum(numbers_of(table["vanished"])[is_clean])),
        "median_smallest_eps": _median_smallest(numbers_of(table["smallest_eps"])[is_attacked & is_clean]),
        "sweep": sweep,
    }


def report_robustness(summary: dict[str, Any], remedy: str = "") -> Report:
    """The report of a summary: accuracy, success and similarities under each budget.

    Args:
        summary: See :func:`summarize_robustness`.
        remedy: What would show how robust the images are of which the network is too sure; a sentence.
    """
    sweep = summary["sweep"]
    names = ("median_smallest_eps", "n_saturated", "n_vanished")
    scalars = image_scalars(summary) | {f"{SUMMARY}/{name}": summary[name] for name in names}
    for row in sweep:
        numbers: dict[tuple[str, ...], float | None] = {
            (name,): row[name] for name in ("robust_acc", "robust_acc_top5", "attack_success_rate")
        }
        numbers |= {("attack_success_rate", where): rate for where, rate in transfer_rates(row).items()}
        for method, moved in row["methods"].items():
            numbers |= {(name, method): moved[name] for name in ("rank_correlation", "top_overlap")}
        scalars |= {tag(SCORES, *parts, f"eps {row['written']}"): value for parts, value in numbers.items()}
    if sweep:
        scalars[f"{SUMMARY}/robust_acc_at_the_largest_eps"] = sweep[-1]["robust_acc"]
    return Report(scalars, summary, [_table(summary)], _notes(summary, remedy), LEGEND)


def _table(summary: dict[str, Any]) -> Table:
    """Accuracy under attack, success, and how far explanations moved, for each budget."""
    methods = list(summary["sweep"][0]["methods"]) if summary["sweep"] else []
    header = ["eps", "top-1", "top-5", "success of the attack"]
    header += [f"success {where}" for where in transfer_rates(summary["sweep"][0] if summary["sweep"] else {})]
    header += ["L∞", "L2"]
    header += [f"{name}: {what}" for name in methods for what in ("rank correlation", "top 15 % in common")]
    clean = ["0", *map(share, (summary["clean_acc"], summary["clean_acc_top5"]))]
    rows = [clean + [""] * (len(header) - len(clean))]
    for row in summary["sweep"]:
        shares = [share(row[name]) for name in ("robust_acc", "robust_acc_top5", "attack_success_rate")]
        moved = [
            f"{number(m['rank_correlation'])} (of {m['n']:,})"
            if name == "rank_correlation"
            else share(m["top_overlap"])
            for m in row["methods"].values()
            for name in ("rank_correlation", "top_overlap")
        ]
        distances = [_distance(row["linf"], ".4f"), _distance(row["l2"], ".3f")]
        elsewhere = map(share, transfer_rates(row).values())
        rows.append([row["written"], *shares, *elsewhere, *distances, *moved])
    title = f"Robustness; success is over the {summary['n_attacked']:,} images that could be fooled"
    return Table(header, rows, title)


def _distance(value: float | None, form: str) -> str:
    """A number, or a dash; a small one with as many digits as it takes."""
    return number(value, ".2g" if value is not None and 0 < value < 0.001 else form)


def _notes(summary: dict[str, Any], remedy: str) -> list[str]:
    """How small a budget fools an image; how many images only look robust, and what to do about it."""
    median = summary["median_smallest_eps"]
    written = {row["eps"]: row["written"] for row in summary["sweep"]}
    # Of an even number of images the median may lie between two budgets.
    said = "above the sweep" if median is None else written.get(median) or format_eps(median)
    notes = [f"Median smallest eps that fools an image: {said}"]
    if not summary["n_attacked"]:
        notes = ["There was no image to fool: none was classified rightly, or none could be computed."]
    if summary["n_saturated"]:
        notes.append(
            f"The network is so sure of {summary['n_saturated']:,} images that float32 rounds their probability to 1. "
            f"{remedy}".rstrip()
        )
    if summary["n_vanished"]:
        notes.append(
            f"The gradient of {summary['n_vanished']:,} images vanished, so the attack left them as they were."
        )
    return notes + notes_of_victims(summary["sweep"])


def _median_smallest(smallest: np.ndarray) -> float | None:
    """Images that no budget fools, NaN, count as infinitely robust."""
    if not len(smallest):
        return None
    median = np.median(np.where(np.isnan(smallest), np.inf, smallest))
    return float(median) if median < float("inf") else None
