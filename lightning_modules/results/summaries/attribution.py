"""From the rows of an attribution run to its summary: each score's mean, interval and count, for each method."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_modules.metrics.localization import ClassDiscrimination, EnergyInBox, LocalizationError, PointingGame
from lightning_modules.results.report import SCORES, Report, image_scalars, tag
from lightning_modules.results.rows.images import Rows, units_of
from lightning_modules.results.rows.stored import groups_of, numbers_of
from lightning_modules.results.scores import mean_and_interval, mean_with_interval, summarize_score
from lightning_modules.results.statistics import means_of_units
from lightning_modules.results.summaries.curves import mean_curves
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

OF_BOXES = frozenset(
    name for metric in (PointingGame, EnergyInBox, LocalizationError, ClassDiscrimination) for name in metric.columns
)
"""Scores that only maps of images with boxes have."""

BOXES_HINT = (
    "Scores against boxes need some of the target class: name their folder, --data.boxes, or have them in shards. "
    "Others need none: --model.metrics '[AverageDrop, InsertionDeletion]'."
)

MOST_COLUMNS = 6
"""Of more methods than that each has a row of the tables, as a terminal is not wide enough for so many columns."""

LABEL = "label."
"""Before a column of a score: it is that of the map of the label's class."""

NOTHING: dict[str, Any] = {"mean": None, "low": None, "high": None, "n": 0}
"""A score of no map."""

PREDICTED, OF_LABEL, RIGHT = ", predicted class", ", label's class", ", classified rightly"
"""After a score: of which class the maps are, or that they are of the images that were classified rightly."""

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

    Of a score see :func:`~lightning_modules.results.scores.summarize_score`; its ``class_mean`` is over the classes of
    the target, and ``n`` the number of maps that could be scored. ``right`` is the same of the images that were
    classified rightly, of which label and prediction are the same class, and ``label``, where rows have it, that of the
    maps of the labels' classes. ``n_degenerate`` counts the maps that are constant or
    not finite. ``failing_randomization`` names the methods whose maps hardly change when the network forgets what it
    has learnt, ``undecided_randomization`` those of which nobody can tell, see
    :func:`~lightning_modules.results.summaries.sanity.sanity_verdict`. ``ranking`` has for each score of which it is
    known whether more is better the places of the methods, see
    :func:`~lightning_modules.results.summaries.ranking.summarize_ranking`, if there are several; ``unbeaten`` the
    methods that do not beat those in ``uninformed``.

    Args:
        table: The rows.
        better: Score -> ``higher`` or ``lower``; also of curves.
        uninformed: Names of the methods that explain nothing.
    """
    better = better or {}
    ranking = {}
    schema = {field.name: field.type for field in table.schema}
    names = list(schema)[list(schema).index("degenerate") + 1 :] if "degenerate" in schema else []
    names = [name for name in names if not name.startswith(LABEL)]
    places = groups_of(table["method"]) if "method" in schema else {}
    methods: dict[str, Any] = {method: {"n_degenerate": 0, "scores": {}, "curves": {}} for method in places}
    # One column after the other, so that one at a time lies in the memory.
    if places:
        images, n_ranked = units_of(table), sum(_is_ranked(table, name) for name in names if name in better)
        is_degenerate, target, is_right = (numbers_of(table[name]) for name in ("degenerate", "target", "top1"))
    for method, of in places.items():
        methods[method]["n_degenerate"] = int(np.nansum(is_degenerate[of]))
    for name in names if places else ():
        if pa.types.is_list(schema[name]):
            for method, curve in mean_curves(table.select(["method", name])).items():
                methods[method]["curves"][name] = curve
            continue
        values = numbers_of(table[name])
        parts = {"right": np.where(is_right == 1, values, np.nan)}
        if LABEL + name in schema:
            parts["label"] = numbers_of(table[LABEL + name])
        for method, of in places.items():
            score = summarize_score(values[of], target[of], images[of])
            for part, found in parts.items():
                score[part] = {**mean_and_interval(found[of], images[of]), "n": int((~np.isnan(found[of])).sum())}
            methods[method]["scores"][name] = score
        if name in better:
            means = {m: means_of_units(values[of], images[of], images.max() + 1) for m, of in places.items()}
            if (ranked := summarize_ranking(means, better[name], n_ranked)) is not None:
                ranking[name] = ranked
    verdicts = {method: sanity_verdict(of) for method, of in methods.items()}
    return {
        **summarize_images(table),
        "methods": methods,
        "better": dict(better),
        "ranking": ranking,
        "uninformed": list(uninformed),
        "unbeaten": unbeaten(ranking, uninformed),
        "failing_randomization": [method for method, verdict in verdicts.items() if verdict == "fails"],
        "undecided_randomization": [method for method, verdict in verdicts.items() if verdict == "undecided"],
    }


def _is_ranked(table: Rows, column: str) -> bool:
    """Whether the methods can be ranked by a column, for which there must be a number in it."""
    return not pa.types.is_list(table.schema.field(column).type) and table[column].null_count < len(table)


def report_attribution(summary: dict[str, Any], has_boxes: bool | None = None, target: str | int = "both") -> Report:
    """The report of a summary: each score of each method.

    Args:
        summary: See :func:`summarize_attribution`.
        has_boxes: Whether boxes came with the images; None = it is not known.
        target: The class explained, as the module has it.
    """
    methods = summary["methods"]
    notes = [
        *_notes_of_unscored(summary, has_boxes, explains_predicted=target == "predicted"),
        *sanity_notes(methods, summary.get("uninformed", ())),
    ]
    black = [name for name, of in methods.items() if of["n_degenerate"] and "CAM" in name and "rectify" not in name]
    if black:
        notes.append(
            f"Maps of {', '.join(black)} that show nothing may be negative everywhere, which is cut off: init_args "
            "{rectify: false} keeps it."
        )
    notes += [*notes_of_ranking(summary["ranking"]), *notes_of_unbeaten(summary.get("unbeaten", {}))]
    scalars = image_scalars(summary)
    for method, of_method in methods.items():
        scalars[tag(SCORES, "degenerate_maps", method)] = of_method["n_degenerate"]
        for name, score in of_method["scores"].items():
            scalars[tag(SCORES, name, method)] = score["mean"]
    if summary.get("top1") not in (None, 1) and target != "both":
        notes.append(
            "Of images that were classified rightly, label and prediction are the same class: whichever is explained, "
            f"their scores are the same. Of the others the maps explain the "
            f"{'predicted class' if target == 'predicted' else 'class asked for'}; --model.target both scores those of "
            "the predicted class and those of the label's."
        )
    return Report(scalars, summary, [_table(methods), *_ranking_tables(summary)] if methods else [], notes, LEGEND)


def _table(methods: dict[str, Any]) -> Table:
    """The methods' scores, each a mean over the maps that could be scored, with its 95 % interval.

    Where images were misclassified, the same stands below of the maps of the labels' classes, if there are any, and
    without these images.
    """
    rows = []
    for name in _scores(methods):
        scores = [of_method["scores"][name] for of_method in methods.values()]
        parts = {"": scores}
        parts |= {
            words: [of.get(key, NOTHING) for of in scores] for words, key in ((OF_LABEL, "label"), (RIGHT, "right"))
        }
        counts = {words: [score["n"] for score in of] for words, of in parts.items()}
        if counts[""] == counts[RIGHT] and counts[OF_LABEL] in (counts[RIGHT], [0] * len(scores)):
            counts = {"": counts[""]}  # no image was misclassified
        shown = [words for words, of in counts.items() if any(of)]
        for words in shown:
            n = "-".join(f"{count:,}" for count in dict.fromkeys((min(counts[words]), max(counts[words]))))
            suffix = PREDICTED if OF_LABEL in shown and not words else words
            rows.append([name + suffix, *map(mean_with_interval, parts[words]), n])
    degenerate = [of_method["n_degenerate"] for of_method in methods.values()]
    if any(degenerate):
        rows.append(["maps that show nothing", *map(str, degenerate), ""])
    return _readable(Table(["mean and 95 % interval of each score", *methods, "maps scored"], rows), len(methods))


def _ranking_tables(summary: dict[str, Any]) -> list[Table]:
    """The place of each method by each score, if several are ranked."""
    ranking, methods = summary["ranking"], list(summary["methods"])
    if not ranking:
        return []
    rows = [
        [name, ranked["better"], *(place(ranked["methods"][method]) for method in methods), _n_ranked(ranked)]
        for name, ranked in ranking.items()
    ]
    title = "Places: 2-4 = from second to fourth; with 95 % over all pairs of methods and all scores, no more is known"
    return [_readable(Table(["score", "better", *methods, "images ranked"], rows, title), len(methods))]


def _n_ranked(ranked: Mapping[str, Any]) -> str:
    """How many images the places are of; and of how many, where some methods lack the score of an image."""
    n, dropped = ranked["n"], ranked.get("n_dropped", 0)
    return f"{n:,} of {n + dropped:,}" if dropped else f"{n:,}"


def _readable(table: Table, n_methods: int) -> Table:
    """A table of which methods are columns, with methods as rows where there are many."""
    return table.transposed() if n_methods > MOST_COLUMNS else table


def _notes_of_unscored(summary: dict[str, Any], has_boxes: bool | None, explains_predicted: bool) -> list[str]:
    """Which scores no map has, and what would give them one."""
    methods = summary["methods"]
    scored = {
        name
        for of_method in methods.values()
        for name, score in of_method["scores"].items()
        if score["n"] or score.get("label", NOTHING)["n"]
    }
    unscored = [name for name in _scores(methods) if name not in scored]
    of_boxes, others = ([name for name in unscored if (name in OF_BOXES) is are] for are in (True, False))
    notes = []
    if of_boxes:
        why = BOXES_HINT if has_boxes is False else _why_no_box_fits(summary, of_boxes, has_boxes, explains_predicted)
        notes.append(f"No map could be scored: {', '.join(of_boxes)}. {why}")
    if others:
        notes.append(f"No map could be scored: {', '.join(others)}.")
    return notes


def _why_no_box_fits(
    summary: dict[str, Any], of_boxes: list[str], has_boxes: bool | None, explains_predicted: bool
) -> str:
    """Sentences for whom the boxes were there, or may have been."""
    if of_boxes == ["class_discrimination"]:
        return "No image has boxes of the class that is explained and of another one."
    if not summary["n_labelled"] and set(of_boxes) <= set(LocalizationError.columns):
        return "The images have no labels, which it needs: they should lie in folders of classes."
    whose = "no image has a box of the class that is explained"
    sentences = [f"Boxes were given, but {whose}." if has_boxes else f"{whose[0].upper()}{whose[1:]}."]
    if wrong := summary["n_box_errors"]:
        sentences.append(f"The boxes of {wrong:,} images are wrong: the column error of the rows says how.")
    elif has_boxes:
        sentences.append("A box's file is called as its image is, and its class as one of the network's.")
    if explains_predicted and summary["n_labelled"]:
        sentences.append("If the boxes are of the images' own classes, --model.target label explains those.")
    if has_boxes is None:
        sentences.append("If there are none: " + BOXES_HINT[0].lower() + BOXES_HINT[1:])
    return " ".join(sentences)


def _scores(methods: dict[str, Any]) -> list[str]:
    return list(next(iter(methods.values()))["scores"]) if methods else []
