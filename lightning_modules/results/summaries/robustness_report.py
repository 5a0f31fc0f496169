"""From the summary of a robustness run to its report; and the scores of maps of clean and of attacked images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.results.attacked_rows import LIKENESS
from lightning_modules.results.report import SCORES, SUMMARY, Report, image_scalars, tag
from lightning_modules.results.rows import units_of
from lightning_modules.results.scores import mean_and_interval, mean_with_interval, share_with_interval
from lightning_modules.results.storage import Rows, numbers_of
from lightning_modules.results.summaries.transfer import notes_of_victims, transfer_intervals, transfer_rates
from lightning_modules.results.tables import Table, number, share

LEGEND = (
    "Each figure shows one image: as it is, what the attack adds to it (made stronger, so that it can be seen), and "
    "the attacked image, each with the class that the network finds most probable. The curves show how the "
    "probabilities change while the attack grows. The maps at the right show where the network looks before and after "
    "the attack."
)


def score_column(method: str, score: str) -> str:
    """The column of a score of a method's maps.

    Example:
        >>> score_column("GradCAM", "average_drop")
        'GradCAM.average_drop'
    """
    return f"{method}.{score}"


def with_scores(summary: dict[str, Any], rows: Rows, methods: Sequence[str], scores: Sequence[str]) -> dict[str, Any]:
    """The summary of a robustness run with the ``scores`` of each method's maps: of the clean images, and each budget.

    Each has its mean, its 95 % interval and ``n``, the number of maps that could be scored.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        rows: Those of the run.
        methods: Names of the methods.
        scores: Their names.
    """
    if not methods or not scores:
        return summary
    eps, units = numbers_of(rows["eps"]), units_of(rows)
    is_good = pc.equal(rows["status"], "ok").fill_null(False).to_numpy()
    rows_at = [np.flatnonzero(is_good & (eps == budget)) for budget in (0.0, *(at["eps"] for at in summary["sweep"]))]
    found: list[dict[str, Any]] = [{method: {} for method in methods} for _ in rows_at]
    for method in methods:
        for score in scores:
            values = numbers_of(rows[score_column(method, score)])
            for scores_at, chosen in zip(found, rows_at):
                n = int((~np.isnan(values[chosen])).sum())
                scores_at[method][score] = {**mean_and_interval(values[chosen], units[chosen]), "n": n}
    sweep = [{**at, "scores": scores_at} for at, scores_at in zip(summary["sweep"], found[1:])]
    return {**summary, "clean_scores": found[0], "sweep": sweep}


def report_robustness(summary: dict[str, Any], remedy: str = "", attack: str = "attack", caveat: str = "") -> Report:
    """The report of a summary: accuracy, success and likeness of maps under each budget.

    Args:
        summary: See :func:`~lightning_modules.results.summaries.robustness.summarize_robustness`.
        remedy: What would show how robust the images are of which the network is too sure; a sentence.
        attack: Its name, for the headers.
        caveat: What does not follow from this attack; a sentence.
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
            numbers |= {(name, method): moved[name] for name in LIKENESS}
        scalars |= {tag(SCORES, *parts, f"eps {row['written']}"): value for parts, value in numbers.items()}
    if sweep:
        scalars[f"{SUMMARY}/robust_acc_at_the_largest_eps"] = sweep[-1]["robust_acc"]
    tables = [_table(summary, attack), *_tables_of_maps(summary, attack)]
    if "clean_scores" in summary:
        tables.append(_table_of_scores(summary, scalars))
    return Report.from_summary(summary, scalars, tables, _notes(summary, remedy, attack, caveat), LEGEND)


def _table(summary: dict[str, Any], attack: str) -> Table:
    """Accuracy under attack and success, for each budget, with 95 % intervals; no column in which nothing stands."""
    sweep = summary["sweep"]
    columns: dict[str, list[str]] = {"eps": ["0", *(row["written"] for row in sweep)]}
    for name, key in (("top-1", ""), ("top-5", "_top5")):
        if summary[f"clean_acc{key}"] is not None:
            clean = _interval(summary, f"clean_acc{key}", summary.get("intervals", {}).get(f"top{5 if key else 1}"))
            under = [_interval(row, f"robust_acc{key}") for row in sweep]
            columns[f"{name} under {attack}"] = [clean, *under]
    columns["success of the attack"] = ["", *(_interval(row, "attack_success_rate") for row in sweep)]
    columns["predictions changed"] = ["", *(f"{row.get('n_changed', 0):,}" for row in sweep)]
    for where in transfer_rates(sweep[0]) if sweep else ():
        cells = [
            share_with_interval({"mean": transfer_rates(row)[where], **transfer_intervals(row)[where]}) for row in sweep
        ]
        columns[f"success {where}"] = ["", *cells]
    columns["L∞"] = ["", *(_distance(row["linf"], ".4f") for row in sweep)]
    columns["L2"] = ["", *(_distance(row["l2"], ".3f") for row in sweep)]
    which = "images that were classified rightly" if summary["clean_acc"] is not None else "images"
    title = f"Robustness; success is over the {summary['n_attacked']:,} {which} and could be fooled, changes over all"
    return Table(list(columns), list(zip(*columns.values())), title)


def _interval(row: Mapping[str, Any], name: str, interval: Sequence[float | None] | None = None) -> str:
    low, high = interval or row.get("intervals", {}).get(name, (None, None))
    return share_with_interval({"mean": row[name], "low": low, "high": high})


def _tables_of_maps(summary: dict[str, Any], attack: str) -> list[Table]:
    """How alike maps of the same class are before and after; a row for each method and budget."""
    sweep = summary["sweep"]
    rows = []
    for method in sweep[0]["methods"] if sweep else ():
        for k, row in enumerate(sweep):
            of = row["methods"][method]
            parts = [of.get(which, {}) for which in ("changed", "unchanged", "noise")]
            floor = summary.get("floor", {}).get(method, {})
            cells = [_likeness(part) for part in (of, *parts, floor)]
            cells[1:3] = [f"{cell} (of {part.get('n', 0):,})" for cell, part in zip(cells[1:3], parts)]
            rows.append(["" if k else method, row["written"], *cells, str(of.get("n_empty", 0)), f"{of['n']:,}"])
    header = ["maps of", "eps", "images moved", "prediction changed", "prediction kept", "under noise", "other picture"]
    title = f"Maps before and after {attack}: rank correlation, and top 15 % in common"
    return [Table([*header, "maps that became empty", "n"], rows, title, n_left=2)] if rows else []


def _table_of_scores(summary: Mapping[str, Any], scalars: dict[str, float | None]) -> Table:
    """The scores of maps, a column for each budget; adds their means to the scalars."""
    budgets = {"0": summary["clean_scores"]} | {at["written"]: at["scores"] for at in summary["sweep"]}
    rows = []
    for method, scores in summary["clean_scores"].items():
        for score in scores:
            rows.append([score, method, *(mean_with_interval(at[method][score]) for at in budgets.values())])
            for eps, at in budgets.items():
                scalars[tag(SCORES, score, method, f"eps {eps}")] = at[method][score]["mean"]
    header = ["mean and 95 % interval", "method", *(f"eps {eps}" for eps in budgets)]
    return Table(header, rows, "Scores of the maps of the clean images (eps 0) and of the attacked ones", n_left=2)


def _likeness(of: Mapping[str, Any]) -> str:
    if of.get("rank_correlation") is None:
        return "-"
    return f"{number(of['rank_correlation'])}, {share(of['top_overlap'])}"


def _distance(value: float | None, form: str) -> str:
    """A number, or a dash; a small one with as many digits as it takes."""
    return number(value, ".2g" if value is not None and 0 < value < 0.001 else form)


def _notes(summary: dict[str, Any], remedy: str, attack: str, caveat: str) -> list[str]:
    """How small a budget fools an image; what the numbers bound; how many images only look robust, and the remedy."""
    median = summary["median_smallest_eps"]
    written = {row["eps"]: row["written"] for row in summary["sweep"]}
    # Of an even number of images the median may lie between two budgets.
    said = "above the sweep" if median is None else written.get(median) or format_eps(median)
    notes = [f"Median smallest eps that fools an image: {said}"]
    if not summary["n_attacked"]:
        notes = ["There was no image to fool: none was classified rightly, or none could be computed."]
    notes.append(
        f"Accuracy under {attack} is an upper bound of robust accuracy: another attack may fool more. An image counts "
        f"as fooled from the smallest budget on at which it was. {caveat}".rstrip()
    )
    if summary["n_saturated"]:
        notes.append(
            f"The network is so sure of {summary['n_saturated']:,} images that float32 rounds their probability to 1. "
            f"{remedy}".rstrip()
        )
    if summary["n_vanished"]:
        notes.append(
            f"The gradient of {summary['n_vanished']:,} images vanished, so the attack left them as they were."
        )
    unmoved = [
        f"{n:,} with {row['written']}"
        for row in summary["sweep"]
        if (n := row.get("n_unmoved", 0) - summary["n_vanished"]) > 0
    ]
    if unmoved:
        notes.append(
            f"Images that the attack handed back as they were, as its search found nothing: {', '.join(unmoved)}. "
            "Distances and maps before and after are of the others."
        )
    return notes + notes_of_victims(summary["sweep"])
