"""The rows of runs that were compared, side by side, and figures of their images below each other."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_modules.figures.comparison import pictures_below_each_other
from lightning_modules.figures.saving import figure_name, pixels_of, save_figure
from lightning_modules.results.choosing import CHANGE, rows_to_choose_from

OTHER = "_other"
"""After a column: it is that of the second run, or method."""

Draw = Callable[[Path, pd.DataFrame, Path], None]
"""Draws the images of some rows of a run into a folder."""


def rows_of_pairs(run: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The rows that both of two runs have, or both of two methods: what is the second's ends in ``_other``.

    What ends in ``_change`` is the second's number less the first's; ``run`` is the folder of the second.

    Args:
        run: The folder of a comparison.
        settings: Its options.
    """
    paths, methods = _runs(run), settings.get("methods")
    frames = [rows_to_choose_from(path) for path in paths]
    pairs = []
    for path, second in zip(paths[1:] or paths, frames[1:] or frames):
        first, keys = frames[0], ["path", *(name for name in ("method", "eps", "variant") if name in second.columns)]
        if methods:
            keys.remove("method")
            first, second = (each[each["method"] == name] for each, name in zip((first, second), methods))
        pair = first.merge(second, on=keys, suffixes=("", OTHER)).assign(run=str(path))
        numbers = [name for name in first.columns if pd.api.types.is_float_dtype(first[name]) and name not in keys]
        changes = {name + CHANGE: pair[name + OTHER] - pair[name] for name in numbers if name + OTHER in pair.columns}
        pairs.append(pair.assign(**changes))
    return pd.concat(pairs, ignore_index=True)


def draw_pairs(run: Path, rows: pd.DataFrame, draw: Draw, out: Path) -> None:
    """Draws images by both runs, one below the other; where two methods of one run are compared, by that run."""
    rows = rows[rows[f"status{OTHER}"] == "ok"].drop_duplicates("path")
    with tempfile.TemporaryDirectory() as folder:
        first = _runs(run)[0]
        by_run = {Path(each): _of_second(of) for each, of in rows.groupby("run", sort=False)} | {first: rows}
        for k, (path, of) in enumerate(by_run.items()):
            draw(path, of, Path(folder, str(k)))
        for number, (image, second) in enumerate(rows[["path", "run"]].itertuples(index=False)):
            chosen = list(dict.fromkeys([first, Path(second)]))
            files = {
                path.name: next(Path(folder, str([*by_run].index(path))).glob(f"*{figure_name(0, image)[5:]}.png"))
                for path in chosen
            }
            name = figure_name(number, image)
            if len(files) == 1:
                shutil.copyfile(files[first.name], out / f"{name}.png")
            else:
                pictures = {title: pixels_of(file) for title, file in files.items()}
                save_figure(pictures_below_each_other(pictures, image, ""), out, name)


def _of_second(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the second run, under their own names."""
    own = pairs.drop(columns=[name.removesuffix(OTHER) for name in pairs if name.endswith(OTHER)])
    return own.rename(columns=lambda name: name.removesuffix(OTHER))


def _runs(run: Path) -> list[Path]:
    return [Path(path) for path in json.loads((run / "summary.json").read_text())["produced_by"]["runs"]]
