"""Reduces the rows of a robustness run to its summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from lightning_modules.attacks.budgets import format_eps
from lightning_modules.results.attacked_rows import EMPTY, LIKENESS, OF_ANOTHER, UNDER_NOISE
from lightning_modules.results.rows import units_of
from lightning_modules.results.scores import mean_and_interval, mean_or_none
from lightning_modules.results.storage import Rows, codes_of, numbers_of
from lightning_modules.results.summaries.images import summarize_images


class Sweep:
    """Columns of a run's rows as tables: a row for each image that did not fail, a column for each budget, 0 first.

    Attributes:
        eps: The budgets above 0 that have rows.
        units: The image that each row is of, as :func:`~lightning_modules.results.rows.units_of` has it.
    """

    def __init__(self, table: Rows) -> None:
        self._table = table
        self._good = np.flatnonzero(pc.equal(table["status"], "ok").fill_null(False).to_numpy())
        eps = numbers_of(table["eps"])[self._good]
        self.eps = [float(value) for value in np.unique(eps[eps > 0])]
        self._column = np.searchsorted([0.0, *self.eps], eps)
        paths, self._row = np.unique(codes_of(table["path"])[0][self._good], return_inverse=True)
        self.units = np.zeros(len(paths), np.int64)
        self.units[self._row] = units_of(table)[self._good]

    def __getitem__(self, name: str) -> np.ndarray:
        """Float64 ``(n_images, 1 + k)``; NaN where there is nothing."""
        found = np.full((len(self.units), 1 + len(self.eps)), np.nan)
        found[self._row, self._column] = numbers_of(self._table[name])[self._good]
        return found

    def ever(self, name: str) -> np.ndarray:
        """What is true at the budget or was at a smaller one, ``(n_images, 1 + k)``; NaN where nobody knows."""
        values = self[name]
        return np.where(np.fmax.accumulate(values, axis=1) == 1, 1, values)

    def still(self, name: str) -> np.ndarray:
        """What is true at the budget and was at each smaller one, and of the clean image; likewise."""
        values = self[name]
        return np.where(np.fmin.accumulate(values, axis=1) == 0, 0, values)

    def rate(self, values: np.ndarray) -> dict[str, Any]:
        """``mean``, ``low``, ``high`` over the images of a column ``(n_images,)`` of which it is known, and ``n``."""
        return mean_and_interval(values, self.units) | {"n": int((~np.isnan(values)).sum())}


def summarize_robustness(table: Rows, budgets: Sequence[float] = ()) -> dict[str, Any]:
    """Summary of the rows of a run, an image and budget each (0 = clean).

    An image counts as fooled from the smallest budget on at which it was, so no curve of accuracy rises: an adversary
    of a larger budget may use a smaller one.

    ``clean_acc`` and each ``robust_acc`` are shares of the labelled images. ``attack_success_rate`` and
    ``median_smallest_eps`` are over the ``n_attacked`` images that were classified rightly (all, where they are
    unlabelled) and could be fooled; the median is None where half of them or more withstand the whole sweep.
    ``n_changed`` counts the images, of all, of which the predicted class changed. ``intervals`` has the 95 % intervals
    of the shares of its name. ``written`` says a budget as it was typed.

    ``n_unmoved`` images were handed back as they were under a budget: they are left out of the means of distances and
    of likeness. ``methods`` has for each method the likeness of its maps before and after: of all images (``n``), of
    those whose prediction the budget ``changed`` and of those where it did not (``unchanged``), and under ``noise`` of
    the same budget; and ``n_empty`` maps that became empty, of which the likeness counts as 0. ``floor`` is that of
    maps of different images.

    Args:
        table: The rows.
        budgets: Those of the sweep.
    """
    images, of = summarize_images(table), Sweep(table)
    written = {float(eps): format_eps(eps) for eps in budgets}
    predictions, linf = of["prediction"], of["linf"]
    is_changed = ((predictions != predictions[:, :1]) & ~np.isnan(predictions))[:, 1:]
    is_moved = ~(linf[:, 1:] == 0)
    is_attacked, rates = _rates(of)
    n_changed = np.maximum.accumulate(is_changed, axis=1).sum(0).tolist()
    sweep: list[dict[str, Any]] = []
    for k, eps in enumerate(of.eps):
        at: dict[str, Any] = {"eps": eps, "written": written.get(eps, format_eps(eps))}
        at |= {name: rate[k]["mean"] for name, rate in rates.items()}
        at["intervals"] = {name: [rate[k]["low"], rate[k]["high"]] for name, rate in rates.items()}
        at["n_changed"] = n_changed[k]
        at |= {name: mean_or_none(of[name][is_moved[:, k], 1 + k]) for name in ("linf", "l2")}
        sweep.append(at | {"n_unmoved": int((~is_moved[:, k]).sum()), "methods": {}})
    floor = {}
    for method in methods_in(table.schema.names):
        found, floor[method] = _likeness(of, method, is_moved, is_changed)
        for at, likeness in zip(sweep, found):
            at["methods"][method] = likeness
    return {
        **images,
        "clean_acc": images["top1"],
        "clean_acc_top5": images["top5"],
        "n_attacked": int(is_attacked.sum()),
        "n_saturated": int(np.nansum(of["saturated"][:, 0])),
        "n_vanished": int((of["vanished"][:, 0] == 1).sum()),
        "median_smallest_eps": _median_smallest(of["smallest_eps"][is_attacked, 0]),
        "floor": floor,
        "sweep": sweep,
    }


def _rates(of: Sweep) -> tuple[np.ndarray, dict[str, list[dict[str, Any]]]]:
    """Which images could be fooled, and the shares of the summary under each budget."""
    top1, success = of.still("top1"), of.ever("success")
    # Unlabelled images have no top1; nobody knows that they are wrong.
    is_attacked = ~np.isnan(success[:, 0]) & (top1[:, 0] != 0)
    success[~is_attacked] = np.nan
    shares = {"robust_acc": top1, "robust_acc_top5": of.still("top5"), "attack_success_rate": success}
    return is_attacked, {name: [of.rate(column) for column in values.T[1:]] for name, values in shares.items()}


def methods_in(columns: Iterable[str]) -> list[str]:
    """The methods that have columns among these.

    Example:
        >>> methods_in(["path", "GradCAM.rank_correlation", "GradCAM.noise.rank_correlation", "GradCAM.empty"])
        ['GradCAM']
    """
    return [name.removesuffix(EMPTY) for name in columns if name.endswith(EMPTY)]


def _likeness(
    of: Sweep, method: str, is_moved: np.ndarray, is_changed: np.ndarray
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """How alike a method's maps are under each budget, and those of different images."""
    # Where the clean image's map shows nothing, there is nothing that could move.
    shows_nothing = of[method + EMPTY][:, :1] == 1
    found: list[dict[str, Any]] = [{} for _ in of.eps]
    for name in LIKENESS:
        values, noise = (of[f"{method}{which}.{name}"][:, 1:] for which in ("", UNDER_NOISE))
        has_died = np.isnan(values) & ~shows_nothing
        values = np.where(is_moved, np.where(has_died, 0, values), np.nan)
        noise = np.where(np.isnan(noise) & ~shows_nothing, 0, noise)
        for k, likeness in enumerate(found):
            rate = of.rate(values[:, k])
            likeness |= {name: rate["mean"], "n": rate["n"], f"{name}_interval": [rate["low"], rate["high"]]}
            for which, are in (("changed", is_changed[:, k]), ("unchanged", ~is_changed[:, k])):
                part = likeness.setdefault(which, {})
                part |= {name: mean_or_none(values[are, k]), "n": int((~np.isnan(values[are, k])).sum())}
            likeness.setdefault("noise", {})[name] = mean_or_none(noise[:, k])
            likeness["n_empty"] = int((has_died & is_moved)[:, k].sum())
    return found, {name: mean_or_none(of[f"{method}{OF_ANOTHER}.{name}"][:, 0]) for name in LIKENESS}


def _median_smallest(smallest: np.ndarray) -> float | None:
    """Images that no budget fools, NaN, count as infinitely robust."""
    if not len(smallest):
        return None
    median = np.median(np.where(np.isnan(smallest), np.inf, smallest))
    return float(median) if median < float("inf") else None
