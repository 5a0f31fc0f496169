"""From the rows of an attribution run to its summary and report: each score's mean, interval and count, by method."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_modules.metrics.localization import ClassDiscrimination, EnergyInBox, LocalizationError, PointingGame
from lightning_modules.results.report import SCORES, Report, image_scalars, tag
from lightning_modules.results.rows import units_of
from lightning_modules.results.scores import mean_and_interval, mean_with_interval, summarize_score
from lightning_modules.results.statistics import means_of_units
from lightning_modules.results.storage import Rows, groups_of, numbers_of
from lightning_modules.results.summaries.images import summarize_images
from lightning_modules.results.summaries.ranking import (
    notes_of_ranking,
    notes_of_unbeaten,
    place,
    summarize_ranking,
    unbeaten,
)
from lightning_modules.results.summaries.sanity import sanity_notes, sanity_verdict
from lightning_modules.results.tables import Table

BOX_SCORES = frozenset(
    name for metric in (PointingGame, EnergyInBox, LocalizationError, ClassDiscrimination) for name in metric.columns
)
"""Scores that only maps of images with boxes have."""

BOXES_HINT = (
    "Scores against boxes need some of the target class: name their folder, --data.boxes, or have them in shards. "
    "Others need none: --model.metrics '[AverageDrop, InsertionDeletion]'."
)

MOST_COLUMNS = 6
"""With more methods, each is a row of the tables: a terminal has no room for so many columns."""

LABEL = "label."
"""Before a column of a score: it is that of the map of the label's class."""

NOTHING: dict[str, Any] = {"mean": None, "low": None, "high": None, "n": 0}
"""A score of no map."""

PREDICTED, OF_LABEL, RIGHT = ", predicted class", ", label's class", ", classified rightly"
"""After a score: of which class the maps are, or that they are of the images that were classified rightly."""

ROWS_AT_ONCE = 2**16
"""Of curves, so that those of a million images do not fill the memory."""

LEGEND = (
    "Each figure shows one image, with the classes that the network finds most probable. The dashed frame is what the "
    "network sees. Each further column is a method: above, its map alone; below, the map laid over the image. The "
    "brighter a place, the more it counts for the class that is explained. In maps with signs, red pixels raise the "
    "score of the class when they become brighter, and blue ones lower it."
)


def summarize_attribution(
    table: Rows, better: Mapping[str, str] | None = None, uninformed: Collection[str] = ()
) -> dict[str, Any]:
    """Counts of images, accuracy, and for each method its scores and mean curves.

    For a score see :func:`~lightning_modules.results.scores.summarize_score`; ``class_mean`` is over target classes.
    ``right`` is the same of the images that were classified rightly, and ``label``, if the rows have it, that of the
    maps of the labels' classes. ``n_degenerate`` counts the maps that are constant or not finite.
    ``failing_randomization`` and ``undecided_randomization`` list methods, see :func:`.sanity.sanity_verdict`.
    ``ranking`` has, if there are several methods, their places by each score of which it is known whether more is
    better, see :func:`.ranking.summarize_ranking`; ``unbeaten`` the methods that do not beat those in ``uninformed``.

    Args:
        table: The rows.
        better: Score -> ``higher`` or ``lower``; also of curves.
        uninformed: Names of the methods that explain nothing.
    """
    better = better or {}
    schema = {field.name: field.type for field in table.schema}
    names = _score_names([*schema])
    groups = groups_of(table["method"]) if "method" in schema else {}
    methods, ranking = dict[str, Any](), dict[str, Any]()
    if groups:
        images, is_degenerate = units_of(table), numbers_of(table["degenerate"])
        target, is_right = numbers_of(table["target"]), numbers_of(table["top1"])
        n_ranked = sum(_is_ranked(table, name) for name in names if name in better)
        n_degenerate = {method: int(np.nansum(is_degenerate[rows])) for method, rows in groups.items()}
        methods = {method: {"n_degenerate": n, "scores": {}, "curves": {}} for method, n in n_degenerate.items()}
    for name in names if groups else ():  # one column after the other, to have only one in the memory
        column = table[name]
        if pa.types.is_list(schema[name]):
            for method, rows in groups.items():
                methods[method]["curves"][name] = mean_curve(column, rows)
            continue
        values = numbers_of(column)
        parts = {"right": np.where(is_right == 1, values, np.nan)}
        if LABEL + name in schema:
            parts["label"] = numbers_of(table[LABEL + name])
        for method, rows in groups.items():
            score = summarize_score(values[rows], target[rows], images[rows])
            score |= {key: _mean_and_count(part[rows], images[rows]) for key, part in parts.items()}
            methods[method]["scores"][name] = score
        if name in better:
            n_images = images.max() + 1
            means = {method: means_of_units(values[rows], images[rows], n_images) for method, rows in groups.items()}
            if (ranked := summarize_ranking(means, better[name], n_ranked)) is not None:
                ranking[name] = ranked
    verdicts = {method: sanity_verdict(numbers) for method, numbers in methods.items()}
    failing, undecided = ([name for name, at in verdicts.items() if at == kind] for kind in ("fails", "undecided"))
    return {
        **summarize_images(table),
        "methods": methods,
        "better": dict(better),
        "ranking": ranking,
        "uninformed": list(uninformed),
        "unbeaten": unbeaten(ranking, uninformed),
        "failing_randomization": failing,
        "undecided_randomization": undecided,
    }


def _score_names(columns: Sequence[str]) -> list[str]:
    """The scores and curves among the columns, which come after all others; those of labels' maps have their names."""
    first = columns.index("degenerate") + 1 if "degenerate" in columns else len(columns)
    return [name for name in columns[first:] if not name.startswith(LABEL)]


def _mean_and_count(values: np.ndarray, images: np.ndarray) -> dict[str, Any]:
    """The mean of N scores with its interval over the images, and of how many."""
    return {**mean_and_interval(values, images), "n": int((~np.isnan(values)).sum())}


def mean_curve(lists: pa.ChunkedArray, rows: np.ndarray) -> list[float | None] | None:
    """The mean of lists, point by point; missing points are left out. None if there is no list.

    Args:
        lists: A list for each row, or null; lists may end earlier than others.
        rows: Numbers of the rows.
    """
    sums, counts, n_lists = np.zeros(0), np.zeros(0, np.int64), 0
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = lists.take(pa.array(rows[start : start + ROWS_AT_ONCE])).combine_chunks().drop_null()
        lengths = pc.list_value_length(part).to_numpy()
        values = part.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        point = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        is_known = ~np.isnan(values)
        n_points = max(len(sums), int(lengths.max(initial=0)))
        missing = n_points - len(sums)
        sums = np.pad(sums, (0, missing)) + np.bincount(point[is_known], values[is_known], n_points)
        counts = np.pad(counts, (0, missing)) + np.bincount(point[is_known], minlength=n_points)
        n_lists += len(part)
    return [float(total / n) if n else None for total, n in zip(sums, counts)] if n_lists else None


def _is_ranked(table: Rows, column: str) -> bool:
    """Whether methods can be ranked by a column: it holds a number."""
    return not pa.types.is_list(table.schema.field(column).type) and table[column].null_count < len(table)


def report_attribution(
    summary: dict[str, Any],
    has_boxes: bool | None = None,
    *,
    target: str | int = "both",
    further_notes: Sequence[str] = (),
) -> Report:
    """The report of a summary: each score of each method.

    Args:
        summary: See :func:`summarize_attribution`.
        has_boxes: Whether boxes came with the images; None = unknown.
        target: The class explained, as the module has it.
        further_notes: Notes to add.
    """
    methods = summary["methods"]
    scalars = image_scalars(summary)
    for method, numbers in methods.items():
        scalars[tag(SCORES, "degenerate_maps", method)] = numbers["n_degenerate"]
        for name, score in numbers["scores"].items():
            scalars[tag(SCORES, name, method)] = score["mean"]
    notes = [
        *_notes_of_unscored(summary, has_boxes, explains_predicted=target == "predicted"),
        *sanity_notes(methods, summary.get("uninformed", ())),
    ]
    black = [name for name in methods if methods[name]["n_degenerate"] and "CAM" in name and "rectify" not in name]
    if black:
        notes.append(
            f"Maps of {', '.join(black)} that show nothing may be negative everywhere, which is cut off: init_args "
            "{rectify: false} keeps it."
        )
    notes += [*notes_of_ranking(summary["ranking"]), *notes_of_unbeaten(summary.get("unbeaten", {}))]
    if summary.get("top1") not in (None, 1) and target != "both":
        explained = "predicted class" if target == "predicted" else "class asked for"
        notes.append(
            "Of images that were classified rightly, label and prediction are the same class: whichever is explained, "
            f"their scores are the same. Of the others the maps explain the {explained}; --model.target both scores "
            "those of the predicted class and those of the label's."
        )
    tables = [_table_of_scores(methods), *_tables_of_places(summary)] if methods else []
    return Report.from_summary(summary, scalars, tables, [*notes, *further_notes], LEGEND)


def _table_of_scores(methods: dict[str, Any]) -> Table:
    """The scores, each a mean over the maps that could be scored, with its 95 % interval.

    If images were misclassified, further lines have the same of the maps of the labels' classes, and without them.
    """
    rows = []
    for name in _scores(methods):
        scores = [numbers["scores"][name] for numbers in methods.values()]
        lines = {"": scores}
        for words, key in ((OF_LABEL, "label"), (RIGHT, "right")):
            lines[words] = [score.get(key, NOTHING) for score in scores]
        counts = {words: [score["n"] for score in line] for words, line in lines.items()}
        if counts[""] == counts[RIGHT] and counts[OF_LABEL] in (counts[RIGHT], [0] * len(scores)):
            counts = {"": counts[""]}  # no image was misclassified
        shown = [words for words, line in counts.items() if any(line)]
        for words in shown:
            n = "-".join(f"{count:,}" for count in dict.fromkeys((min(counts[words]), max(counts[words]))))
            suffix = PREDICTED if OF_LABEL in shown and not words else words
            rows.append([name + suffix, *map(mean_with_interval, lines[words]), n])
    degenerate = [numbers["n_degenerate"] for numbers in methods.values()]
    if any(degenerate):
        rows.append(["maps that show nothing", *map(str, degenerate), ""])
    return _readable(Table(["mean and 95 % interval of each score", *methods, "maps scored"], rows), len(methods))


def _tables_of_places(summary: dict[str, Any]) -> list[Table]:
    """The places of the methods by each score, if they are ranked."""
    methods, rows = list(summary["methods"]), []
    for name, ranked in summary["ranking"].items():
        n, dropped = ranked["n"], ranked.get("n_dropped", 0)
        places = [place(ranked["methods"][method]) for method in methods]
        rows.append([name, ranked["better"], *places, f"{n:,} of {n + dropped:,}" if dropped else f"{n:,}"])
    title = "Places: 2-4 = from second to fourth; with 95 % over all pairs of methods and all scores, no more is known"
    table = Table(["score", "better", *methods, "images ranked"], rows, title)
    return [_readable(table, len(methods))] if rows else []


def _readable(table: Table, n_methods: int) -> Table:
    """A table with methods as columns, or as rows if there are many."""
    return table.transposed() if n_methods > MOST_COLUMNS else table


def _notes_of_unscored(summary: dict[str, Any], has_boxes: bool | None, explains_predicted: bool) -> list[str]:
    """Which scores no map has, and how it would get one."""
    scored = {
        name
        for numbers in summary["methods"].values()
        for name, score in numbers["scores"].items()
        if score["n"] or score.get("label", NOTHING)["n"]
    }
    unscored = [name for name in _scores(summary["methods"]) if name not in scored]
    against_boxes = [name for name in unscored if name in BOX_SCORES]
    others = [name for name in unscored if name not in BOX_SCORES]
    notes = []
    if against_boxes:
        no_boxes = has_boxes is False
        why = BOXES_HINT if no_boxes else _why_no_box_fits(summary, against_boxes, has_boxes, explains_predicted)
        notes.append(f"No map could be scored: {', '.join(against_boxes)}. {why}")
    if others:
        notes.append(f"No map could be scored: {', '.join(others)}.")
    return notes


def _why_no_box_fits(
    summary: dict[str, Any], scores: list[str], has_boxes: bool | None, explains_predicted: bool
) -> str:
    """Sentences for a user who gave boxes, or may have given some."""
    if scores == ["class_discrimination"]:
        return "No image has boxes of the class that is explained and of another one."
    if not summary["n_labelled"] and set(scores) <= set(LocalizationError.columns):
        return "The images have no labels, which it needs: they should lie in folders of classes."
    no_box = "no image has a box of the class that is explained"
    sentences = [f"Boxes were given, but {no_box}." if has_boxes else f"{no_box[0].upper()}{no_box[1:]}."]
    if wrong := summary["n_box_errors"]:
        sentences.append(f"The boxes of {wrong:,} images are wrong: see the column error of the rows.")
    elif has_boxes:
        sentences.append("A box's file is called as its image is, and its class as one of the network's.")
    if explains_predicted and summary["n_labelled"]:
        sentences.append("If the boxes are of the images' own classes, --model.target label explains those.")
    if has_boxes is None:
        sentences.append("If there are none: " + BOXES_HINT[0].lower() + BOXES_HINT[1:])
    return " ".join(sentences)


def _scores(methods: dict[str, Any]) -> list[str]:
    return list(next(iter(methods.values()))["scores"]) if methods else []
