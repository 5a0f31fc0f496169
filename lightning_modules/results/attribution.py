"""From the rows of an attribution run to its summary: each score's mean, interval and count, for each method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import stats

from lightning_modules.metrics.randomization import FAILING_CORRELATION
from lightning_modules.results.report import CURVES, SCORES, Report, describe_images, image_scalars, markdown_table, tag
from lightning_modules.results.rows import summarize_images

N_RESAMPLES = 1000


def summarize_attribution(table: pa.Table) -> dict[str, Any]:
    """Counts of images, accuracy, and for each method its scores and mean curves.

    A score has ``mean``, ``low`` and ``high`` (its bootstrap 95 % interval), ``class_mean`` (the mean over classes of
    the target of their means), and ``n``, the number of maps that could be scored; all None but ``n`` where there are
    none. ``n_degenerate`` counts the maps that are constant or not finite. ``failing_randomization`` names the methods
    whose maps hardly change when the network forgets everything.
    """
    frame = table.to_pandas()
    schema = {field.name: field.type for field in table.schema}
    names = list(schema)[list(schema).index("degenerate") + 1 :] if "degenerate" in schema else []
    curves = [name for name in names if pa.types.is_list(schema[name])]
    methods: dict[str, Any] = {}
    for method, rows in frame.dropna(subset=["method"]).groupby("method", sort=False):
        methods[str(method)] = {
            "n_degenerate": int(rows["degenerate"].sum()),
            "scores": {name: summarize_score(rows[name], rows["target"]) for name in names if name not in curves},
            "curves": {name: mean_curve(rows[name]) for name in curves},
        }
    correlations = {
        method: of_method["scores"].get("randomization_correlation", {}).get("mean")
        for method, of_method in methods.items()
    }
    return {
        **summarize_images(frame),
        "methods": methods,
        "failing_randomization": [
            name for name, r in correlations.items() if r is not None and r > FAILING_CORRELATION
        ],
    }


def report_attribution(summary: dict[str, Any]) -> Report:
    """The report of a summary: each score of each method, and each mean curve.

    A step of a curve over pixels is a percent of them; of one over layers, a layer.
    """
    methods = summary["methods"]
    scalars = image_scalars(summary)
    curves = {}
    for method, of_method in methods.items():
        scalars[tag(SCORES, "degenerate_maps", method)] = of_method["n_degenerate"]
        for name, score in of_method["scores"].items():
            scalars[tag(SCORES, name, method)] = score["mean"]
        for name, values in of_method["curves"].items():
            if values:
                over, steps = curve_steps(name, len(values))
                curves[tag(f"{CURVES}_over_{over}", name, method)] = list(zip(steps, values))
    scores = list(next(iter(methods.values()))["scores"]) if methods else []
    cells = [[name, *(_cell(of_method["scores"][name]) for of_method in methods.values())] for name in scores]
    cells.append(["maps that show nothing", *(str(of_method["n_degenerate"]) for of_method in methods.values())])
    table = markdown_table(["mean and 95 % interval of each score", *methods], cells)
    return Report(scalars, curves, f"{describe_images(summary)}\n\n{table}")


def curve_steps(name: str, n: int) -> tuple[str, list[int]]:
    """What a step of the curve is, and its steps."""
    if name.startswith("randomization"):
        return "layers", list(range(n))
    return "percent_of_pixels", [round(100 * k / max(1, n - 1)) for k in range(n)]


def _cell(score: dict[str, Any]) -> str:
    return f"{score['mean']:.3f} [{score['low']:.3f}, {score['high']:.3f}] of {score['n']:,}" if score["n"] else "-"


def summarize_score(values: pd.Series, target: pd.Series) -> dict[str, Any]:
    """Mean, bootstrap 95 % interval, mean over classes, and count of one score; missing values are left out."""
    scored = values.dropna()
    if scored.empty:
        return {"mean": None, "low": None, "high": None, "class_mean": None, "n": 0}
    numbers = scored.to_numpy(dtype=np.float64)
    low, high = bootstrap_interval(numbers)
    class_mean = float(scored.groupby(target[scored.index]).mean().mean())
    return {"mean": float(numbers.mean()), "low": low, "high": high, "class_mean": class_mean, "n": len(numbers)}


def bootstrap_interval(values: np.ndarray, n_resamples: int = N_RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The percentile bootstrap's 95 % interval of the mean; of a single value, that value.

    Reference: Efron, "Bootstrap methods: another look at the jackknife", 1979.
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    # Resamples are drawn some at a time: all at once would take n_resamples times the memory of the values.
    batch = max(1, 5_000_000 // len(values))
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=n_resamples, batch=batch, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def mean_curve(curves: pd.Series) -> list[float | None] | None:
    """The mean of lists of one length, point by point; a missing point is left out, and None where all miss it."""
    present = curves.dropna()
    if present.empty:
        return None
    points = pd.DataFrame([[np.nan if v is None else v for v in curve] for curve in present], dtype=np.float64)
    return [None if np.isnan(value) else float(value) for value in points.mean()]
