"""The rows of a run, grouped for a comparison: for each method, budget or variant the numbers of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.errors import InputError
from lightning_modules.results.attacked_rows import EMPTY, OF_ANOTHER, RANK_CORRELATION, TOP_OVERLAP, UNDER_NOISE
from lightning_modules.results.storage import KEYS, Rows
from lightning_modules.results.summaries.verdicts import judges_in, verdict_columns

KINDS = KEYS[1:]
"""Columns that may tell the rows of one image apart; in other runs an image has one row."""

FLAGS = {"top1": "top-1", "top5": "top-5", "success": "success of the attack"}
"""Columns of truth values, and their names in tables."""

IMAGE_COLUMNS = ("label", "label_name", "prediction", "prediction_name", "target", "fingerprint")
SAME_FOR_METHODS = ("top1", "top5", "probability")
"""Columns that are the same in the rows of each method of an image."""

CLEAN_COLUMNS = ("top1", "top5", "probability", "probability_label")
"""Columns that say something of an image that was not attacked."""

NOT_COMPARED = (
    *("degenerate", "saturated", "vanished"),  # they say why a number is missing
    "smallest_eps",  # is missing where no budget fools an image, so a mean of pairs would mislead
    *("seconds", "cpu_seconds"),  # depend on the machine
)


@dataclass(frozen=True)
class Measured:
    """The numbers of a run, by image.

    Attributes:
        name: Of the run.
        kind: Which of :data:`KINDS` its groups are; empty if an image has one row.
        groups: Method, budget as text, or variant -> a row for each image that did not fail, by its path; float64
            columns, NaN = not scored. The group "" holds the numbers of the image alone.
        flags: Which of the columns are truth values, 1 = true.
        images: :data:`IMAGE_COLUMNS`, as far as there are any, of each image that did not fail, by its path.
        failed: Paths of the images that failed.
        n_degenerate: Method -> number of its maps that show nothing, and so may have no score.
        n_classes: How many classes the network has; None = unknown.
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
        """The columns of all groups, each once, the flags first."""
        found = dict.fromkeys(name for frame in self.groups.values() for name in frame.columns)
        return sorted(found, key=lambda name: name not in self.flags)

    @property
    def paths(self) -> pd.Index:
        """Of all images, the failed ones too."""
        return self.images.index.append(self.failed)

    @property
    def methods(self) -> set[str]:
        """The methods with rows or, in a run of attacks, with columns."""
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
        """The numbers of one method's maps.

        Args:
            method: As the rows name it.
            name: Of this part of the run.
            with_images: Whether to keep the numbers of the image alone.

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
    """The numbers of a run, from its rows.

    Args:
        table: The rows.
        name: Of the run.
        n_classes: How many classes its network has; None = unknown.

    Raises:
        InputError: If the rows lack columns that every run has, as those of another version may.
    """
    names = table.schema.names
    if lacking := [column for column in ("path", "status") if column not in names]:
        raise InputError(f"The rows of {name} have no column {' and no '.join(lacking)}: another version wrote them.")
    kind = next((each for each in KINDS if each in names), "")
    scored = [each for each in table.schema if _is_compared(each)]
    judges = judges_in(names)
    ranks = {f"named first by {judge}": verdict_columns(judge)["rank"] for judge in judges}
    wanted = {"path", "status", kind, "degenerate", *IMAGE_COLUMNS, *(each.name for each in scored), *ranks.values()}
    # Text as categories: of a million images it would else fill the memory.
    frame = pa.table({each: table[each] for each in names if each in wanted}).to_pandas(strings_to_categorical=True)
    frame["path"] = frame["path"].astype(object)
    good = frame[frame["status"] == "ok"]
    failed = pd.Index(frame.loc[frame["status"].notna() & (frame["status"] != "ok"), "path"].unique())
    numbers = good[[each.name for each in scored]].astype(np.float64).set_index(good["path"])
    for flag, column in ranks.items():
        numbers[flag] = (good[column] <= 1).to_numpy(np.float64)
        numbers.loc[good[column].isna().to_numpy(), flag] = np.nan
    groups = {"": numbers} if len(good) and not kind else {}
    if kind:
        groups = {
            format_eps(float(key)) if kind == "eps" else str(key): numbers[(good[kind] == key).to_numpy()]
            for key in good[kind].dropna().unique()
        }
    if kind == "method" and groups:
        same = [each for each in SAME_FOR_METHODS if each in numbers]
        of_images = next(iter(groups.values()))[same]
        groups = {"": of_images} | {key: each.drop(columns=same) for key, each in groups.items()}
    if kind == "eps" and "0" in groups:
        groups["0"] = groups["0"][[each for each in numbers if each in CLEAN_COLUMNS]]
    images = good.drop_duplicates("path").set_index("path")[[each for each in IMAGE_COLUMNS if each in good]]
    images = images.astype({each: object for each in ("label_name", "prediction_name") if each in images})
    flags = frozenset([*ranks, *(each.name for each in scored if pa.types.is_boolean(each.type))])
    degenerate = good.loc[good["degenerate"] == True, kind] if kind == "method" and "degenerate" in good else []  # noqa: E712
    n_degenerate = {str(method): int(n) for method, n in pd.Series(degenerate).value_counts(sort=False).items() if n}
    return Measured(name, kind, groups, flags, images, failed, n_degenerate, n_classes)


def _is_compared(column: pa.Field) -> bool:
    """Whether means of pairs of a column say something of the networks; not what likeness is held against."""
    is_number = pa.types.is_boolean(column.type) or pa.types.is_floating(column.type)
    is_reference = column.name.endswith(EMPTY) or any(f"{which}." in column.name for which in (UNDER_NOISE, OF_ANOTHER))
    return is_number and not is_reference and column.name not in (*KINDS, *NOT_COMPARED)
