"""Rows of a run that are worth a look: chosen by a condition, by a word, or by a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from lightning_modules.errors import InputError, described
from lightning_modules.results.storage import columns_of_rows, read_rows

SHOW = ("mistakes", "disagreements", "fragile", "stable", "failed", "worst SCORE", "best SCORE", "changed SCORE")
"""What rows can be chosen by, beside a condition of one's own."""

CHANGE = "_change"
"""After a number: how far it is from that of the first run, or method."""


@dataclass(frozen=True)
class Choice:
    """Rows, in the order in which they are looked at.

    Attributes:
        rows: Those that fit.
        words: What they were chosen by.
        columns: The names of the columns that were asked about.
    """

    rows: pd.DataFrame
    words: str
    columns: Sequence[str] = ()

    def paths(self, n: int) -> list[str]:
        """The first ``n`` images among the rows."""
        return [str(path) for path in self.rows["path"].drop_duplicates().head(n)]


def rows_to_choose_from(run: Path) -> pd.DataFrame:
    """The rows of a run without its curves; with the cluster of an image, where find_strategies.py found some.

    Truth values and whole numbers may be missing (``<NA>``), as in the rows.
    """
    kinds: dict[pa.DataType, object] = {pa.bool_(): pd.BooleanDtype(), pa.int64(): pd.Int64Dtype()}
    columns = columns_of_rows(run / "results", lists=False)
    rows = read_rows(run / "results", columns).to_pandas(types_mapper=kinds.get)
    clusters = run / "strategies/clusters.parquet"
    if clusters.exists():
        found = pd.read_parquet(clusters)[["path", "class", "cluster"]]
        found = found.rename(columns={"class": "cluster_class"}).drop_duplicates("path")
        rows = rows.merge(found.astype({"cluster": "Int64"}), on="path", how="left")
    return rows


def choose(
    rows: pd.DataFrame,
    *,
    where: str | None = None,
    sort: Sequence[str] = (),
    show: str | None = None,
    better: Mapping[str, str] | None = None,
) -> Choice:
    """The rows that fit.

    Args:
        rows: See :func:`rows_to_choose_from`.
        where: A condition in pandas' query syntax, such as ``method == "GradCAM" and average_drop > 0.8``.
        sort: Columns to sort by; those that begin with ``-`` from the largest value.
        show: One of :data:`SHOW`, with the name of a score.
        better: Score -> ``higher`` or ``lower``.

    Raises:
        InputError: If there is no such column, the condition is none, or the rows lack what is asked for.
    """
    choice = Choice(rows, "all rows")
    if show is not None:
        word, _, score = show.partition(" ")
        named = _OF_SCORES.get(word) if score else _WORDS.get(word)
        if named is None:
            raise InputError(f"--show takes one of {', '.join(SHOW)}; got {show!r}.")
        choice = named(rows, score, better or {})
    if where:
        fits = _fitting(choice.rows, where)
        mentioned = [name for name in rows.columns if name in where]
        words = f"where {where}" if show is None else f"{choice.words}, where {where}"
        choice = Choice(choice.rows[fits], words, [*choice.columns, *mentioned])
    if sort:
        names = [name.removeprefix("-") for name in sort]
        _check_columns(rows, names, "--sort")
        ascending = [not name.startswith("-") for name in sort]
        ordered = choice.rows.sort_values(names, ascending=ascending, kind="stable")
        order = ", ".join(f"{name} {'up' if up else 'down'}" for name, up in zip(names, ascending))
        choice = Choice(ordered, f"{choice.words}; by {order}", [*choice.columns, *names])
    return replace(choice, columns=list(dict.fromkeys(choice.columns)))


def _fitting(rows: pd.DataFrame, where: str) -> pd.Series:
    """Which rows a condition is true of."""
    try:
        fits = rows.eval(where, engine="python")
    except pd.errors.UndefinedVariableError as error:
        raise InputError(f"--where {where!r}: {error}. {_known(rows)}") from error
    except Exception as error:  # whatever Python says of a text
        raise InputError(f"--where {where!r} cannot be read: {described(error)} {_known(rows)}") from error
    if not isinstance(fits, pd.Series) or not pd.api.types.is_bool_dtype(fits):
        raise InputError(f"""--where {where!r} is no condition, such as 'method == "GradCAM" and probability > 0.8'.""")
    return fits.fillna(False).astype(bool)


def _known(rows: pd.DataFrame) -> str:
    return f"Columns, those of several words in backticks: {', '.join(rows.columns)}."


def _check_columns(rows: pd.DataFrame, names: Sequence[str], option: str) -> None:
    for name in names:
        if name not in rows.columns:
            raise InputError(f"{option}: there is no column {name!r}. {_known(rows)}")


def _asked(rows: pd.DataFrame, word: str, *names: str) -> None:
    if missing := [name for name in names if name not in rows.columns]:
        raise InputError(f"--show {word} needs rows with {missing[0]}, which this run has not. {_known(rows)}")


def _mistakes(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    if "name" in rows.columns:  # images that were made of classes
        wrong = rows[(rows["prediction"] != rows["target"]).fillna(False) & (rows["status"] == "ok")]
        columns = ["name"]
    else:
        _asked(rows, "mistakes", "top1", "probability")
        wrong, columns = rows[~rows["top1"].fillna(True)], ["label_name"]
    if "eps" in rows.columns:
        wrong = wrong[wrong["eps"] == 0]
    ordered = wrong.sort_values("probability", ascending=False, kind="stable")
    return Choice(ordered, "mistakes, the surest first", [*columns, "prediction_name", "probability"])


def _disagreements(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    _asked(rows, "disagreements", "method")
    scores = [name for name in rows.columns if name in better and pd.api.types.is_float_dtype(rows[name])]
    if rows["method"].nunique() < 2 or not scores:
        raise InputError("--show disagreements needs the rows of several methods with a score.")
    usual = rows[scores].std().where(lambda deviation: deviation > 0)
    of_image = (rows[scores] / usual).groupby(rows["path"])
    spread = (of_image.max() - of_image.min()).mean(axis=1)
    found = rows.assign(disagreement=rows["path"].map(spread)).dropna(subset="disagreement")
    ordered = found.sort_values("disagreement", ascending=False, kind="stable")
    words = f"images whose methods differ most in {', '.join(scores)} (mean range, in standard deviations)"
    return Choice(ordered, words, ["method", "disagreement", *scores])


def _fragile(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    _asked(rows, "fragile", "success", "eps")
    distance = ["distance"] if "distance" in rows.columns else []
    fooled = rows[rows["success"].fillna(False) & (rows["eps"] > 0)]
    ordered = fooled.sort_values([*distance, "eps", "probability_label"], kind="stable").drop_duplicates("path")
    return Choice(ordered, "images that the smallest budgets fool", ["eps", *distance, "prediction_name"])


def _stable(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    _asked(rows, "stable", "success", "eps")
    attacked = rows[rows["success"].notna() & (rows["eps"] > 0)]
    fooled = attacked.loc[attacked["success"].astype(bool), "path"]
    held = attacked[~attacked["path"].isin(fooled) & (attacked["eps"] == attacked["eps"].max())]
    ordered = held.sort_values("probability_label", ascending=False, kind="stable")
    return Choice(ordered, "images that no budget fools, the surest first", ["eps", "probability_label"])


def _failed(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    return Choice(rows[rows["status"] == "failed"], "images that failed", ["error"])


def _extreme(word: str) -> Callable[[pd.DataFrame, str, Mapping[str, str]], Choice]:
    def chosen(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
        _check_columns(rows, [score], f"--show {word}")
        direction = better.get(score.removeprefix("label."))
        if direction is None:
            raise InputError(f"Whether more or less of {score} is better, the run does not say: use --sort {score}.")
        found = rows.dropna(subset=score).sort_values(
            score, ascending=(direction == "higher") == (word == "worst"), kind="stable"
        )
        return Choice(found, f"{word} {score} ({direction} is better)", [score])

    return chosen


def _changed(rows: pd.DataFrame, score: str, better: Mapping[str, str]) -> Choice:
    change = score + CHANGE
    _check_columns(rows, [change], "--show changed")
    found = rows.dropna(subset=change)
    order = found[change].abs().sort_values(ascending=False, kind="stable").index
    return Choice(found.loc[order], f"images of which {score} changed most", [score, change])


_Chooser = Callable[[pd.DataFrame, str, Mapping[str, str]], Choice]
_WORDS: dict[str, _Chooser] = {
    "mistakes": _mistakes,
    "disagreements": _disagreements,
    "fragile": _fragile,
    "stable": _stable,
    "failed": _failed,
}
_OF_SCORES: dict[str, _Chooser] = {"worst": _extreme("worst"), "best": _extreme("best"), "changed": _changed}
