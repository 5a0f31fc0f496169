"""The rows of a run as what can be paired: for each method or budget, the numbers of each image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.errors import InputError
from lightning_modules.results.rows.attacked import EMPTY, OF_ANOTHER, RANK_CORRELATION, TOP_OVERLAP, UNDER_NOISE
from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.stored import KEYS, codes_of, numbers_of
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
            ``label``, ``prediction``, ``prediction_name``, ``target`` and ``fingerprint``.
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

    @property
    def methods(self) -> set[str]:
        """Those of which there are rows or, of attacked images, columns."""
        if self.kind == "method":
            return {group for group in self.groups if group}
        moved = [name for name in self.columns if name.endswith((RANK_CORRELATION, TOP_OVERLAP))]
        return {name.rpartition(".")[0] for name in moved}

    def renamed(self, methods: Mapping[str, str]) -> Measured:
        """The same with other names for some methods."""

        def column(name: str) -> str:
            method, dot, score = name.rpartition(".")
            return f"{methods.get(method, method)}{dot}{score}"

        groups = {methods.get(key, key): frame.rename(columns=column) for key, frame in self.groups.items()}
        n_degenerate = {methods.get(key, key): n for key, n in self.n_degenerate.items()}
        return replace(self, groups=groups, n_degenerate=n_degenerate)

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


def measured(table: Rows, name: str, n_classes: int | None = None) -> Measured:
    """What the rows of a run measured.

    Args:
        table: The rows.
        name: What the run is called.
        n_classes: How many classes its network has; None = it is not known.

    Raises:
        InputError: If they lack what rows of every run have, as those of an older version may.
    """
    names = table.schema.names
    if lacking := [column for column in ("path", "status") if column not in names]:
        raise InputError(f"The rows of {name} have no column {' and no '.join(lacking)}: another version wrote them.")
    kind = next((each for each in KINDS if each in names), "")
    is_ok = pc.equal(table["status"], "ok")
    failed = table["path"].filter(pc.invert(is_ok)).unique()
    good = np.flatnonzero(is_ok.fill_null(False).to_numpy())
    images, n_degenerate = _images(table, good), _degenerate(table, good)
    places = _places(table, kind, good)
    groups: dict[str, dict[str, np.ndarray]] = {_called(kind, key): {} for key in places}
    of_image: dict[str, np.ndarray] = {}
    flags = set()
    # One column after the other, so that one at a time lies in the memory.
    for column, is_flag, values in _numbers(table):
        flags |= {column} if is_flag else set()
        if kind == "method" and column in OF_IMAGES:
            of_image[column] = values[next(iter(places.values()))] if places else values[:0]
            continue
        for key, of in places.items():
            if kind != "eps" or key != 0 or column in OF_THE_CLEAN:
                groups[_called(kind, key)][column] = values[of]
    index = _indices(table, images, good, places)
    frames = {"": pd.DataFrame(of_image, index=next(iter(index.values())))} if kind == "method" and places else {}
    frames |= {_called(kind, key): pd.DataFrame(groups[_called(kind, key)], index=index[key]) for key in places}
    failed = pd.Index(failed.cast(pa.string()).to_pandas())
    return Measured(name, kind, frames, frozenset(flags), images, failed, n_degenerate, n_classes)


def _called(kind: str, key: Any) -> str:
    return format_eps(float(key)) if kind == "eps" else str(key)


def _places(table: Rows, kind: str, good: np.ndarray) -> dict[Any, np.ndarray]:
    """Method, budget or variant -> where its rows stand, of those that are good; the first first."""
    if not kind:
        return {"": good} if len(good) else {}
    codes, values = codes_of(table[kind].cast(pa.string()) if kind != "eps" else table[kind])
    of_good, known = codes[good], values.to_pylist()
    return {known[code]: good[of_good == code] for code in pd.unique(of_good) if code >= 0}


def _indices(
    table: Rows, images: pd.DataFrame, good: np.ndarray, places: Mapping[Any, np.ndarray]
) -> dict[Any, pd.Index]:
    """The paths of each group's rows; one object where they are those of the images, in the same order."""
    codes, paths = codes_of(table["path"])
    of_images, found = pd.unique(codes[good]), {}
    for key, of in places.items():
        is_all = np.array_equal(codes[of], of_images)
        found[key] = images.index if is_all else pd.Index(paths.take(pa.array(codes[of])).to_pandas(), name="path")
    return found


def _numbers(table: Rows) -> Iterator[tuple[str, bool, np.ndarray]]:
    """The columns that are compared: name, whether it is of yes and no, and a number for each row."""
    for column in table.schema:
        is_flag = pa.types.is_boolean(column.type)
        if column.name not in (*KINDS, *NOT_COMPARED, *OF_THE_MAKING) and (
            is_flag or pa.types.is_floating(column.type)
        ):
            if column.name.endswith(EMPTY) or any(f"{of}." in column.name for of in (UNDER_NOISE, OF_ANOTHER)):
                continue  # what the likeness of an attacked image's maps is held against
            yield column.name, is_flag, numbers_of(table[column.name])
    for judge in judges_in(table.schema.names):
        ranks = numbers_of(table[verdict_columns(judge)["rank"]])
        yield f"named first by {judge}", True, np.where(np.isnan(ranks), np.nan, ranks <= 1)


def _images(table: Rows, good: np.ndarray) -> pd.DataFrame:
    """What is said of each image, from the first of its rows that are good."""
    is_first = ~pd.Series(codes_of(table["path"])[0][good]).duplicated().to_numpy()
    first = pa.array(good[is_first])
    known = ("path", "label", "label_name", "prediction", "prediction_name", "target", "fingerprint")
    fields = [field for field in table.schema if field.name in known]
    columns = {field.name: table[field.name].take(first).cast(field.type) for field in fields}
    order = [name for name in known if name in columns]
    return pa.table({name: columns[name] for name in order}).to_pandas().set_index("path")


def _degenerate(table: Rows, good: np.ndarray) -> dict[str, int]:
    if not {"method", "degenerate"} <= set(table.schema.names):
        return {}
    is_degenerate = numbers_of(table["degenerate"])[good] == 1
    codes, values = codes_of(table["method"])
    known = values.to_pylist()
    counts = pd.Series(codes[good][is_degenerate]).value_counts(sort=False)
    return {str(known[code]): int(n) for code, n in counts.items()}
