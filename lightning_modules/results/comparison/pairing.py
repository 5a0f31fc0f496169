"""Pairs of rows of two runs; what has no pair is refused, or left out with a note."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from datamodules.batch import some
from lightning_modules.errors import InputError
from lightning_modules.results.comparison.measured import Measured


@dataclass(frozen=True)
class Pairs:
    """What two runs measured of the same images.

    Attributes:
        first: That the other is compared with.
        second: The other.
        paths: Of the images that failed in neither.
        groups: Method, budget or variant that both have -> the columns that both have of it.
        notes: Sentences about what was left out, and what the numbers do not mean.
    """

    first: Measured
    second: Measured
    paths: pd.Index
    groups: Mapping[str, Sequence[str]]
    notes: Sequence[str]

    def values(self, group: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        """A number of each of the images, in the first and in the second; NaN where there is none."""
        first, second = (run.groups[group][column].reindex(self.paths).to_numpy() for run in (self.first, self.second))
        return first, second


def pairs_of(first: Measured, second: Measured, *, common: bool = False) -> Pairs:
    """Pairs the rows of two runs by the paths of their images, and by method, budget or variant.

    Methods of one class and the same options are paired also where they look at layers of other names, as those of two
    networks must; a note says so. Images that failed in one of them are left out, with a note.

    Args:
        first: That the other is compared with.
        second: The other.
        common: Whether what only one of them has may be left out, with a note.

    Raises:
        InputError: If they are of different evaluations, an image is labelled otherwise, one has what the other lacks
            (unless ``common``), or they have nothing in common.
    """
    names = f"{first.name} and {second.name}"
    first, second, layer_notes = _paired_by_class(first, second)
    if first.kind != second.kind:
        raise InputError(
            f"{names} are runs of different evaluations: {_rows_of(first)}, {_rows_of(second)}. Compare like with like."
        )
    left_out = [
        *_only_in_one(first, second, "image", lambda run: run.paths),
        *_only_in_one(first, second, first.kind, lambda run: run.groups),
        *_only_in_one(first, second, "score", lambda run: [*run.columns, *run.images.columns.intersection(WITH_NAMES)]),
    ]
    paths = first.images.index.intersection(second.images.index, sort=False)
    groups = {
        group: columns
        for group, frame in first.groups.items()
        if group in second.groups and (columns := [name for name in frame if name in second.groups[group]])
    }
    if not len(paths) or not any(groups.values()):
        raise InputError(f"{names} have no pair: {'; '.join(left_out) or 'no image that failed in neither'}.")
    if left_out and not common:
        raise InputError(f"{names} are not of the same: {'; '.join(left_out)}. What both have is compared by --common.")
    first_images, second_images = (run.images.loc[paths] for run in (first, second))
    _refuse_other_labels(first, second, first_images, second_images)
    notes = [f"Left out: {'; '.join(left_out)}."] if left_out else []
    notes += layer_notes
    notes += _failed(first, second)
    notes += _other_classes(first, second) or _other_targets(first_images, second_images)
    notes += [_nothing_shown(run) for run in (first, second) if run.n_degenerate]
    return Pairs(first, second, paths, groups, notes)


def _paired_by_class(first: Measured, second: Measured) -> tuple[Measured, Measured, list[str]]:
    """Two runs in which methods that differ in their layers alone are called alike, and sentences that say so."""
    own = [run.methods - other.methods for run, other in ((first, second), (second, first))]
    groups: list[dict[str, list[str]]] = [{}, {}]
    for of_class, names in zip(groups, own):
        for name in sorted(names):
            of_class.setdefault(_without_layers(name), []).append(name)
    alike = [key for key in groups[0] if len(groups[0][key]) == len(groups[1].get(key, ())) == 1]
    if not alike:
        return first, second, []
    pairs = [(key, groups[0][key][0], groups[1][key][0]) for key in alike]
    taken = (first.methods - own[0]) | (second.methods - own[1])
    called = {key: one if key in taken else key for key, one, _ in pairs}
    sentences = [
        f"{key} looks at other layers: {one} in {first.name} is paired with {other} in {second.name}."
        for key, one, other in pairs
    ]
    return (
        first.renamed({one: called[key] for key, one, _ in pairs}),
        second.renamed({other: called[key] for key, _, other in pairs}),
        sentences,
    )


def _without_layers(method: str) -> str:
    """A method's name without its options ``layer`` and ``layers``; that of what is no such name as it is.

    Example:
        >>> _without_layers("ScoreCAM(layer='features.29', max_batch=8)"), _without_layers("GradCAM(layer='body.3')")
        ('ScoreCAM(max_batch=8)', 'GradCAM')
    """
    try:
        call = ast.parse(method, mode="eval").body
    except SyntaxError:
        return method
    if not isinstance(call, ast.Call):
        return method
    call.keywords = [option for option in call.keywords if option.arg not in ("layer", "layers")]
    return ast.unparse(call).removesuffix("()")


WITH_NAMES = ("label_name",)
"""Columns that are no scores, but without which a comparison could be of different things."""


def _rows_of(run: Measured) -> str:
    return f"{run.name} has {f'a row for each {run.kind}' if run.kind else 'one row an image'}"


def _only_in_one(first: Measured, second: Measured, what: str, of: Callable[[Measured], Any]) -> list[str]:
    """What one of two runs has and the other lacks, with examples."""
    known = [of(run) for run in (first, second)]
    found = [names if isinstance(names, pd.Index) else pd.Index(list(names)) for names in known]
    if found[0].equals(found[1]):  # fast, for a million images
        return []
    sentences = []
    for run, own, others in ((first, *found), (second, *found[::-1])):
        only = own.difference(others, sort=False)
        if len(only):
            sentences.append(f"{len(only):,} {what}{'s' * (len(only) > 1)} only in {run.name}: {some(only)}")
    return sentences


def _refuse_other_labels(
    first: Measured, second: Measured, first_images: pd.DataFrame, second_images: pd.DataFrame
) -> None:
    if not all("label_name" in images for images in (first_images, second_images)):
        return
    labels = [images["label_name"].fillna("").astype(str) for images in (first_images, second_images)]
    differ = labels[0] != labels[1]
    if n := int(differ.sum()):
        path = str(differ.idxmax())
        one, other = (f"{of[path]!r}" if of[path] else "no class" for of in labels)
        raise InputError(
            f"{n:,} of {len(differ):,} images have other labels in {first.name} than in {second.name}: {path} is {one} "
            f"and {other}. If these are the same classes in other words, run both with the same --model.class_names."
        )


def _failed(first: Measured, second: Measured) -> list[str]:
    """How many images failed in one of two runs or both; they are no pairs."""
    failed = first.failed.union(second.failed)
    if not len(failed):
        return []
    counts = f"{len(first.failed):,} in {first.name}, {len(second.failed):,} in {second.name}"
    return [f"{len(failed):,} image{'s' * (len(failed) > 1)} failed ({counts}) and left out: {some(failed)}."]


def _other_classes(first: Measured, second: Measured) -> list[str]:
    """That two networks know different classes, if they do, as far as the rows tell."""
    names = [_names_of_classes(run.images) for run in (first, second)]
    n_classes = [run.n_classes for run in (first, second)]
    reasons = []
    if None not in n_classes and n_classes[0] != n_classes[1]:
        reasons.append(f"{n_classes[0]:,} and {n_classes[1]:,}")
    differ = [k for k in sorted(names[0].keys() & names[1].keys()) if names[0][k] != names[1][k]]
    if differ:
        reasons.append(f"class {differ[0]} is {names[0][differ[0]]!r} and {names[1][differ[0]]!r}")
    if not reasons:
        return []
    return [
        f"The networks of {first.name} and {second.name} know different classes ({'; '.join(reasons)}): accuracy, "
        "probabilities and what is explained are among other classes in each."
    ]


def _names_of_classes(images: pd.DataFrame) -> dict[int, str]:
    """The classes that the rows of a run name, by their indices."""
    found: dict[int, str] = {}
    for index, name in (("label", "label_name"), ("prediction", "prediction_name")):
        if {index, name} <= set(images):
            known = images[[index, name]].dropna().drop_duplicates(index)
            found |= dict(zip(known[index].astype(int), known[name].astype(str)))
    return found


def _other_targets(first_images: pd.DataFrame, second_images: pd.DataFrame) -> list[str]:
    """Of how many images another class is explained, or attacked, in each run."""
    if not all("target" in images for images in (first_images, second_images)):
        return []
    n = int((first_images["target"] != second_images["target"]).sum())
    if not n:
        return []
    return [
        f"Of {n:,} of the {len(first_images):,} images another class is explained or attacked in each run, such as the "
        "one that it predicts: their scores are of different classes."
    ]


def _nothing_shown(run: Measured) -> str:
    counts = ", ".join(f"{n:,} of {method}" for method, n in run.n_degenerate.items())
    return f"Maps of {run.name} that show nothing, and may have no score: {counts}."
