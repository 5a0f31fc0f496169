"""From the rows of an attribution run to its summary: each score's mean, interval and count, for each method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lightning_modules.errors import told_from
from lightning_modules.metrics.localization import ClassDiscrimination, EnergyInBox, LocalizationError, PointingGame
from lightning_modules.metrics.randomization import FAILING_CORRELATION, OF_SEEDS
from lightning_modules.results.report import SCORES, Report, image_scalars, tag
from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.stored import codes_of, groups_of, numbers_of
from lightning_modules.results.scores import mean_with_interval, summarize_score
from lightning_modules.results.summaries.curves import mean_curves
from lightning_modules.results.summaries.images import summarize_images
from lightning_modules.results.summaries.ranking import Resamples, place, rank_methods
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

LEGEND = (
    "Each figure shows one image, with the classes that the network finds most probable. The dashed frame is what the "
    "network sees. Each further column is a method: above, its map alone; below, the map laid over the image. The "
    "brighter a place, the more it counts for the class that is explained. In maps with signs, red pixels raise the "
    "score of the class when they become brighter, and blue ones lower it."
)


def summarize_attribution(table: Rows, better: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Counts of images, accuracy, and for each method its scores and mean curves.

    Of a score see :func:`~lightning_modules.results.scores.summarize_score`; its ``class_mean`` is over the classes of
    the target, and ``n`` the number of maps that could be scored. ``n_degenerate`` counts the maps that are constant or
    not finite. ``failing_randomization`` names the methods whose maps hardly change when the network forgets
    everything, ``undecided_randomization`` those of which that holds under some seeds of the random weights and not
    under others. ``ranking`` has for each score of which it is known whether more is better the places of the methods,
    see :func:`~lightning_modules.results.summaries.ranking.rank_methods`, if there are several; ``unranked`` names the
    scores of which it is not.

    Args:
        table: The rows.
        better: Score -> ``higher`` or ``lower``; also of curves.
    """
    better = better or {}
    ranking, resamples = {}, Resamples()
    schema = {field.name: field.type for field in table.schema}
    names = list(schema)[list(schema).index("degenerate") + 1 :] if "degenerate" in schema else []
    places = groups_of(table["method"]) if "method" in schema else {}
    methods: dict[str, Any] = {method: {"n_degenerate": 0, "scores": {}, "curves": {}} for method in places}
    # One column after the other, so that one at a time lies in the memory.
    if places:
        # Numbered in the order of the rows: the order in which parts know them would decide which are drawn again.
        images = pd.factorize(codes_of(table["path"])[0])[0]
        is_degenerate, target = numbers_of(table["degenerate"]), numbers_of(table["target"])
    for method, of in places.items():
        methods[method]["n_degenerate"] = int(np.nansum(is_degenerate[of]))
    for name in names if places else ():
        if pa.types.is_list(schema[name]):
            for method, curve in mean_curves(table.select(["method", name])).items():
                methods[method]["curves"][name] = curve
            continue
        values = numbers_of(table[name])
        for method, of in places.items():
            methods[method]["scores"][name] = summarize_score(values[of], target[of])
        if name in better:
            of_images = {method: _by_image(values[of], images[of], images.max() + 1) for method, of in places.items()}
            if (ranked := rank_methods(of_images, better[name], resamples)) is not None:
                ranking[name] = ranked
    fails = {method: [r > FAILING_CORRELATION for r in correlations(of)] for method, of in methods.items()}
    return {
        **summarize_images(table),
        "methods": methods,
        "better": dict(better),
        "ranking": ranking,
        "unranked": [name for name in _scores(methods) if name not in better],
        "failing_randomization": [method for method, of_seeds in fails.items() if of_seeds and all(of_seeds)],
        "undecided_randomization": [method for method, of_seeds in fails.items() if any(of_seeds) > all(of_seeds)],
    }


def _by_image(values: np.ndarray, images: np.ndarray, n: int) -> np.ndarray:
    """The value of each image ``(n,)``, of those that stand at ``images``; NaN of the others."""
    of_image = np.full(n, np.nan)
    of_image[images] = values
    return of_image


def correlations(of_method: dict[str, Any]) -> list[float]:
    """The mean rank correlation of a method's maps with those of the networks that forget, under each seed."""
    mean = of_method["scores"].get("randomization_correlation", {}).get("mean")
    of_seeds = of_method["curves"].get(OF_SEEDS) or [mean]
    return [r for r in of_seeds if r is not None]


def report_attribution(
    summary: dict[str, Any], has_boxes: bool | None = None, *, explains_predicted: bool = False
) -> Report:
    """The report of a summary: each score of each method.

    Args:
        summary: See :func:`summarize_attribution`.
        has_boxes: Whether boxes came with the images; None = it is not known.
        explains_predicted: Whether the class explained is the predicted one, not that of the folder.
    """
    methods = summary["methods"]
    notes = [*_notes_of_unscored(summary, has_boxes, explains_predicted), *_sanity_notes(summary)]
    if summary["unranked"] and len(methods) > 1:
        notes.append(
            f"Methods are not ranked by {', '.join(summary['unranked'])}: whether more or less of it is better is not "
            "known. A metric says it by lower_is_better."
        )
    scalars = image_scalars(summary)
    for method, of_method in methods.items():
        scalars[tag(SCORES, "degenerate_maps", method)] = of_method["n_degenerate"]
        for name, score in of_method["scores"].items():
            scalars[tag(SCORES, name, method)] = score["mean"]
    return Report(scalars, summary, [_table(methods), *_ranking_tables(summary)] if methods else [], notes, LEGEND)


def _table(methods: dict[str, Any]) -> Table:
    """The methods' scores, each a mean over the maps that could be scored, with its 95 % interval."""
    rows = []
    for name in _scores(methods):
        of_methods = [of_method["scores"][name] for of_method in methods.values()]
        if not any(score["n"] for score in of_methods):
            continue  # of which a note says why
        counts = sorted({score["n"] for score in of_methods})
        n = "-".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
        rows.append([name, *map(mean_with_interval, of_methods), n])
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
        [name, ranked["better"], *(place(ranked["methods"][method]) for method in methods), f"{ranked['n']:,}"]
        for name, ranked in ranking.items()
    ]
    title = "Places: 2-4 = from second to fourth, as no more can be told apart with 95 % over all pairs of methods"
    return [_readable(Table(["score", "better", *methods, "images ranked"], rows, title), len(methods))]


def _readable(table: Table, n_methods: int) -> Table:
    """A table of which methods are columns, with methods as rows where there are many."""
    return table.transposed() if n_methods > MOST_COLUMNS else table


def _notes_of_unscored(summary: dict[str, Any], has_boxes: bool | None, explains_predicted: bool) -> list[str]:
    """Which scores no map has, and what would give them one."""
    methods = summary["methods"]
    unscored = [name for name in _scores(methods) if not any(of["scores"][name]["n"] for of in methods.values())]
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


def _sanity_notes(summary: dict[str, Any]) -> list[str]:
    """The verdict on each method that does not pass; of several seeds, on each method."""
    verdicts = dict.fromkeys(summary["failing_randomization"], "fails the sanity check")
    verdicts |= dict.fromkeys(summary["undecided_randomization"], "is left undecided by the sanity check")
    notes = []
    for method, of_method in summary["methods"].items():
        verdict = verdicts.get(method, "passes the sanity check" if len(correlations(of_method)) > 1 else None)
        if verdict is not None:
            kept = of_method["scores"]["randomization_correlation"]["mean"]
            notes.append(
                f"{method} {verdict}: while the network forgets what it has learnt, its maps keep a rank correlation "
                f"of {_told(kept)} with those before, on average{_spread(of_method)}; more than "
                f"{FAILING_CORRELATION:g} fails."
            )
    return notes


def _told(correlation: float) -> str:
    """In two digits, or as many as tell on which side of what fails it is."""
    return told_from(correlation, FAILING_CORRELATION, form=".2f")


def _spread(of_method: dict[str, Any]) -> str:
    """Over how many seeds, and how far apart they lie."""
    of_seeds = correlations(of_method)
    if len(of_seeds) < 2:
        return " of one draw of the random weights"
    least, greatest = _told(min(of_seeds)), _told(max(of_seeds))
    return f" of {len(of_seeds)} draws of the random weights, which give {least} to {greatest}"


def _scores(methods: dict[str, Any]) -> list[str]:
    return list(next(iter(methods.values()))["scores"]) if methods else []
