"""From the pairs of runs to a summary of their differences, and to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lightning_modules.errors import InputError
from lightning_modules.results.comparison.measured import FLAGS
from lightning_modules.results.comparison.paired import holm, mcnemar, paired_difference
from lightning_modules.results.comparison.pairing import Pairs
from lightning_modules.results.report import SCORES, Report, tag
from lightning_modules.results.statistics import means_of_units
from lightning_modules.results.tables import Table, number

EVERY = "every image"
"""What tables call the group of what is of the image alone."""


def summarize_comparisons(comparisons: Sequence[Pairs]) -> dict[str, Any]:
    """The differences of each run to the first one.

    Each of ``scores`` has the ``score`` and the ``group`` that it is of, and what :class:`PairedDifference` has; one of
    yes and no has ``only_first``, ``only_second`` and ``p`` of :class:`McNemar` too, and ``p_holm``, which is corrected
    for all tests of the summary. ``notes`` are sentences about what was left out.

    Args:
        comparisons: Of the same first run with others, one or more.
    """
    compared = {pairs.second.name: _scores(pairs) for pairs in comparisons}
    tested = [score for scores in compared.values() for score in scores if "p" in score and score["n"]]
    for score, p in zip(tested, holm([score["p"] for score in tested])):
        score["p_holm"] = p
    return {
        "n_images": max(len(pairs.paths) for pairs in comparisons),
        "n_failed": 0,
        "kind": comparisons[0].first.kind,
        "first": comparisons[0].first.name,
        "comparisons": {
            pairs.second.name: {
                "n_images": len(pairs.paths),
                "scores": compared[pairs.second.name],
                "notes": list(pairs.notes),
            }
            for pairs in comparisons
        },
    }


def _scores(pairs: Pairs) -> list[dict[str, Any]]:
    """Of each score, those of yes and no first, the difference in each group."""
    found: list[dict[str, Any]] = []
    images = pairs.first.images.loc[pairs.paths]
    # Several paths of the same pixels are one image, and no independent pairs.
    units = pd.factorize(images["fingerprint"])[0] if "fingerprint" in images else np.arange(len(images))
    units = np.where(units < 0, units.max(initial=0) + 1 + np.arange(len(units)), units)
    for column in pairs.first.columns:
        for group in [group for group, columns in pairs.groups.items() if column in columns]:
            first, second = (means_of_units(of, units, len(units) * 2) for of in pairs.values(group, column))
            score = {"score": column, "group": group, **paired_difference(first, second)._asdict()}
            is_flag = column in pairs.first.flags
            if is_flag and not score["n"] + score["n_unpaired"]:
                continue  # as where no image has a label
            if is_flag:
                test = mcnemar(first, second)
                score |= {"only_first": test.only_first, "only_second": test.only_second, "p": test.p}
            found.append(score)
    return found


def report_comparisons(
    summary: Mapping[str, Any], details: Sequence[Table] = (), legend: str = "", further_notes: Sequence[str] = ()
) -> Report:
    """The report of a summary: of each comparison a table of yes and no, one of numbers, and what stands out.

    Args:
        summary: See :func:`summarize_comparisons`.
        details: Further tables, of single images.
        legend: How to read the figure of a single image.
        further_notes: Notes to add.
    """
    tables, notes = [], [_how_to_read(summary)]
    scalars: dict[str, float | None] = {}
    for second, compared in summary["comparisons"].items():
        tables += _tables(summary, second, compared["scores"])
        notes += [*compared["notes"], *_unpaired(summary["first"], second, compared["scores"])]
        for score in compared["scores"]:
            parts = [part for part in (score["group"], second) if part]
            scalars[tag(SCORES, f"difference_{score['score']}", *parts)] = score["difference"]
    notes = [*dict.fromkeys(notes), *further_notes]
    return Report.from_summary(summary, scalars, [*tables, *details], notes, legend)


def _how_to_read(summary: Mapping[str, Any]) -> str:
    """Whose difference to whom, and what the intervals and p-values are corrected for."""
    scores = [score for each in summary["comparisons"].values() for score in each["scores"] if score["n"]]
    n_intervals, n_tests = len(scores), sum("p" in score for score in scores)
    sentences = [
        f"A positive difference means more than in {summary['first']}. Means and differences are over the images that "
        "have the score in both."
    ]
    if n_intervals > 1:
        sentences.append(
            f"Each 95 % interval stands for itself: of {n_intervals} intervals, where nothing differs, about "
            f"{max(1, round(0.05 * n_intervals))} would leave zero out by chance."
        )
    if n_tests > 1:
        sentences.append(f"The p of McNemar's exact test are corrected by Holm for {n_tests} tests.")
    return " ".join(sentences)


def _unpaired(first: str, second: str, scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which scores some images have in one run only."""
    found = [f"{_cell(score)} ({score['n_unpaired']:,})" for score in scores if score["n_unpaired"]]
    if not found:
        return []
    return [f"Images with a score in only one of {first} and {second}, which are no pairs of it: {', '.join(found)}."]


def _cell(score: Mapping[str, Any]) -> str:
    return f"{FLAGS.get(score['score'], score['score'])}{' of ' * bool(score['group'])}{score['group']}"


def _tables(summary: Mapping[str, Any], second: str, scores: Sequence[Mapping[str, Any]]) -> list[Table]:
    first, kind = summary["first"], summary["kind"]
    title = f"{second} compared with {first}"
    flags = [score for score in scores if "p" in score and score["n"]]
    numbers = [score for score in scores if "p" not in score and score["n"]]
    difference = "difference and 95 % interval"
    tables = []
    for chosen, what, header in (
        (flags, "share of the images", [f"only {first}", f"only {second}", "McNemar's test", "pairs"]),
        (numbers, "mean of the score", ["pairs"]),
    ):
        has_groups = any(score["group"] for score in chosen)
        rows = []
        for before, score in zip([None, *chosen], chosen):
            name = FLAGS.get(score["score"], score["score"])
            is_next = before is not None and before["score"] == score["score"]
            rows.append(["" if is_next else name, *([score["group"] or EVERY] if has_groups else []), *_numbers(score)])
        if rows:
            names = [what, *([kind] if has_groups else []), first, second, difference, *header]
            tables.append(Table(names, rows, title, n_left=1 + has_groups))
    return tables


def _numbers(score: Mapping[str, Any]) -> list[str]:
    """The cells of a score: both means, the difference, and what the test says."""
    if "p" in score:
        shares = [*("-" if score[name] is None else f"{score[name]:.1%}" for name in ("first", "second"))]
        test = [str(score["only_first"]), str(score["only_second"]), _p(score["p_holm"])]
        return [*shares, with_interval(score, ".1%"), *test, f"{score['n']:,}"]
    # Budgets and other small numbers need more digits than shares do.
    form = ".3f" if max(abs(score["first"] or 1), abs(score["second"] or 1)) >= 0.1 else ".5f"
    return [number(score["first"], form), number(score["second"], form), with_interval(score, form), f"{score['n']:,}"]


def with_interval(score: Mapping[str, Any], form: str) -> str:
    """A difference and its interval.

    Example:
        >>> with_interval({"difference": 0.1, "low": -0.05, "high": 0.25}, ".2f")
        '+0.10 [-0.05, +0.25]'
    """
    if score["difference"] is None:
        return "-"
    difference = format(score["difference"], f"+{form}")
    if score["low"] is None:
        return difference
    return f"{difference} [{format(score['low'], f'+{form}')}, {format(score['high'], f'+{form}')}]"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


class Changed(NamedTuple):
    """An image of which a score changed.

    Attributes:
        path: Of the image.
        group: The method, budget or variant under which it changed most.
        first: The score in the first run.
        second: In the other.
    """

    path: str
    group: str
    first: float
    second: float


def score_to_rank_by(pairs: Pairs, wanted: str | None) -> str:
    """The score by which images are ranked: by default the first number that is not only of the prediction.

    Raises:
        InputError: If ``wanted`` is no score that both runs have.
    """
    columns = [name for name in pairs.first.columns if any(name in of for of in pairs.groups.values())]
    if wanted is not None:
        if wanted not in columns:
            raise InputError(f"--score: both runs have no score {wanted!r}, but {', '.join(columns)}.")
        return wanted
    numbers = [name for name in columns if name not in pairs.first.flags]
    scored = [
        name
        for name in numbers
        if any(np.isfinite(np.subtract(*pairs.values(g, name))).any() for g, of in pairs.groups.items() if name in of)
    ]
    return next((name for name in scored if name != "probability"), (scored or columns)[0])


def most_changed(pairs: Pairs, score: str, n: int) -> list[Changed]:
    """The images of which a score differs most between two runs, each in the group where it does; at most ``n``.

    Args:
        pairs: Of the runs.
        score: A column that both have.
        n: How many images at the most.
    """
    groups = [group for group, columns in pairs.groups.items() if score in columns]
    values = np.array([pairs.values(group, score) for group in groups])  # (G, 2, N)
    distance = np.abs(values[:, 1] - values[:, 0])
    distance[np.isnan(distance)] = -1
    in_group = distance.argmax(0)
    largest = distance.max(0)
    found = []
    for i in np.argsort(-largest, kind="stable")[:n]:
        if largest[i] > 0:
            first, second = values[in_group[i], :, i].tolist()
            found.append(Changed(str(pairs.paths[i]), groups[in_group[i]], first, second))
    return found


def table_of_changed(pairs: Pairs, score: str, changed: Sequence[Changed]) -> list[Table]:
    """The images of which a score changed most; no table where none did."""
    if not changed:
        return []
    has_groups = any(image.group for image in changed)
    rows = []
    for image in changed:
        numbers = [f"{image.first:.3f}", f"{image.second:.3f}", f"{image.second - image.first:+.3f}"]
        rows.append([image.path, *([image.group] if has_groups else []), *numbers])
    header = ["image", *([pairs.first.kind] if has_groups else []), pairs.first.name, pairs.second.name, "difference"]
    title = f"Where {FLAGS.get(score, score)} differs most, of {len(pairs.paths):,} images"
    return [Table(header, rows, title, n_left=1 + has_groups)]
