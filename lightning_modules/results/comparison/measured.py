"""The rows of a run as what can be paired: for each method or budget, the numbers of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.errors import InputError
from lightning_modules.results.rows.stored import KEYS, numbers_of
from lightning_modules.results.summaries.verdicts import judges_in, verdict_columns

KINDS = KEYS[1:]
"""What may tell the rows of one image apart; an image of other runs has one row."""

FLAGS = {"top1": "top-1", "top5": "top-5", "success": "success of the attack"}
"""Columns of yes and no that tables call otherwise."""

OF_THE_MAKING = ("degenerate", "saturated", "vanished")
"""Columns of yes and no that say why a number is not there, or not what it seems."""

OF_IMAGES = ("top1", "top5", "probability")
"""Columns that say the same of an image in the rows of each method."""

OF_THE_CLEAN = ("top1", "top5", "probability", "probability_label")
"""Columns that say something of an image that was not attacked."""

NOT_COMPARED = ("smallest_eps", "seconds", "cpu_seconds")
"""Numbers of which means of pairs would mislead: where no budget fools an image, there is none; and times are of the
machine too."""


@dataclass(frozen=True)
class Measured:
    """What a run measured of its images.

    Attributes:
        name: What the run is called.
        kind: Which of :data:`KINDS` its groups are; empty where an image has one row.
        groups: Method, written budget or variant -> a row for each image that did not fail, by its path; float64
            columns, NaN = not scored. The group that is called "" holds what is of the image alone.
        flags: Which of the columns are 1 = yes or 0 = no.
        images: What is said of each image that did not fail, by its path: ``label_name``, and what else there is of
            ``label``, ``prediction``, ``prediction_name`` and ``target``.
        failed: Paths of the images that failed.
        n_degenerate: Method -> its maps that show nothing, and so may have no score.
        n_classes: How many classes the network has; None = it is not known.
    """

    name: str
    kind: str
    groups: Mapping[str, pd.DataFrame]
    flags: frozenset[str]
    images: pd.DataFrame
    failed: pd.Index
    n_degenerate: Mapping[str, int] = field(default_factory=dict)
    n_classes: int | None = None

    @property
    def columns(self) -> list[str]:
        """Those of all groups, each once, the flags first."""
        found = dict.fromkeys(name for frame in self.groups.values() for name in frame.columns)
        return sorted(found, key=lambda name: name not in self.flags)

    @property
    def paths(self) -> pd.Index:
        """Of all images, the failed ones too."""
        return self.images.index.append(self.failed)

    def of_method(self, method: str, name: str, *, with_images: bool) -> Measured:
        """What was measured of one method's maps.

        Args:
            method: As the rows name it.
            name: What this part of the run is called.
            with_images: Whether what is of the image alone is kept.

        Raises:
            InputError: If there are no rows of it.
        """
        known = [group for group in self.groups if group]
        if self.kind != "method" or method not in known:
            what = f"those of {', '.join(known)}" if self.kind == "method" else "none of single methods"
            raise InputError(f"--methods: {self.name} has no rows of {method!r}, but {what}.")
        frame = pd.concat([self.groups[""], self.groups[method]], axis=1) if with_images else self.groups[method]
        n_degenerate = {key: n for key, n in self.n_degenerate.items() if key == method}
        return replace(self, name=name, groups={"": frame}, n_degenerate=n_degenerate)


def measured(table: pa.Table, name: str, n_classes: int | None = None) -> Measured:
    """What the rows of a run measured.

    Args:
        table: The rows.
        name: What the run is called.
        n_classes: How many classes its network has; None = it is not known.

    Raises:
        InputError: If they lack what rows of every run have, as those of an older version may.
    """
    if lacking := [column for column in ("path", "status") if column not in table.column_names]:
        raise InputError(f"The rows of {name} have no column {' and no '.join(lacking)}: another version wrote them.")
    kind = next((each for each in KINDS if each in table.column_names), "")
    is_ok = pc.equal(table["status"], "ok")
    good = table.filter(is_ok)
    numbers, flags = _columns(good)
    frame = pd.DataFrame(numbers, index=pd.Index(good["path"].to_pandas(), name="path"))
    groups: dict[str, pd.DataFrame] = {}
    of_group = good[kind].to_numpy(zero_copy_only=False) if kind else np.full(len(good), "")
    for key in pd.unique(of_group):
        rows = frame[of_group == key]
        if kind == "method" and not groups:
            groups[""] = rows[[column for column in rows if column in OF_IMAGES]]
        if kind == "method":
            rows = rows.drop(columns=list(OF_IMAGES), errors="ignore")
        if kind == "eps" and key == 0:
            rows = rows[[column for column in rows if column in OF_THE_CLEAN]]
        groups[format_eps(float(key)) if kind == "eps" else str(key)] = rows
    failed = pd.Index(table.filter(pc.invert(is_ok))["path"].to_pandas()).unique()
    return Measured(name, kind, groups, flags, _images(good), failed, _degenerate(good), n_classes)


def _columns(rows: pa.Table) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    """The numbers, and which of them are yes or no."""
    judges = judges_in(rows.column_names)
    compared = [column for column in rows.schema if column.name not in (*KINDS, *NOT_COMPARED, *OF_THE_MAKING)]
    flags = {column.name for column in compared if pa.types.is_boolean(column.type)}
    numbers = [column.name for column in compared if column.name in flags or pa.types.is_floating(column.type)]
    found = {name: numbers_of(rows[name]) for name in numbers}
    for judge in judges:
        ranks = numbers_of(rows[verdict_columns(judge)["rank"]])
        name = f"named first by {judge}"
        found[name] = np.where(np.isnan(ranks), np.nan, ranks <= 1)
        flags.add(name)
    return found, frozenset(flags)


def _images(good: pa.Table) -> pd.DataFrame:
    """What is said of each image, from the first of its rows."""
    known = ("path", "label", "label_name", "prediction", "prediction_name", "target")
    images = good.select([name for name in known if name in good.column_names]).to_pandas()
    return images.drop_duplicates("path").set_index("path")


def _degenerate(good: pa.Table) -> dict[str, int]:
    if not {"method", "degenerate"} <= set(good.column_names):
        return {}
    counts = good.filter(pc.equal(good["degenerate"], True))["method"].value_counts().to_pylist()
    return {of["values"]: of["counts"] for of in counts}
