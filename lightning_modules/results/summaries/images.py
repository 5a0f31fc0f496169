"""What the rows of any run come to: how many images, how many failed, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.batch import UPRIGHT
from lightning_modules.results.report import SCORES, Report, image_scalars, tag
from lightning_modules.results.rows import units_of
from lightning_modules.results.scores import mean_and_interval, mean_with_interval, summarize_score
from lightning_modules.results.storage import Rows, codes_of, numbers_of
from lightning_modules.results.tables import Table

LEGEND = (
    "Each figure shows one image, with the classes that the network finds most probable. The dashed frame is what the "
    "network sees."
)


def summarize_columns(table: Rows, columns: Sequence[str]) -> dict[str, Any]:
    """Counts of images, accuracy, and ``scores``: of each column its mean, interval, mean over classes and count."""
    label = numbers_of(table["label"])
    scores = {name: summarize_score(numbers_of(table[name]), label) for name in columns}
    return {**summarize_images(table), "scores": scores}


def report_images(summary: dict[str, Any]) -> Report:
    """The report of :func:`summarize_columns`."""
    scores = summary["scores"]
    scalars = image_scalars(summary) | {tag(SCORES, name): score["mean"] for name, score in scores.items()}
    rows = [[name, mean_with_interval(score), f"{score['n']:,}"] for name, score in scores.items() if score["n"]]
    table = Table(["mean and 95 % interval", "of all images", "n"], rows)
    return Report.from_summary(summary, scalars, [table], legend=LEGEND)


def summarize_images(table: Rows) -> dict[str, Any]:
    """Counts of images and accuracy, from rows of which an image may have several.

    ``top1`` and ``top5`` are shares of the labelled images that did not fail, None where there is nothing to tell, and
    ``intervals`` has their 95 % intervals;
    ``classes`` has ``top1`` of each class that has images, and their number, and ``balanced_acc`` is the mean of these.
    ``n_unturned`` counts those that ask by their EXIF orientation to be turned, and were not; ``file_notes`` those of
    which something is seen otherwise than in a viewer, by what it is.
    """
    is_first = pa.array(~pd.Series(codes_of(table["path"])[0]).duplicated().to_numpy())
    is_good = pc.equal(table["status"].filter(is_first), "ok").fill_null(False)

    def of_good(name: str) -> pa.ChunkedArray:
        return table[name].filter(is_first).filter(is_good)

    n_good = pc.sum(is_good).as_py() or 0
    notes = pc.value_counts(of_good("note").cast(pa.string()).drop_null())
    summary: dict[str, Any] = {
        "n_images": len(is_good),
        "n_failed": len(is_good) - n_good,
        "n_box_errors": n_good - of_good("error").null_count,
        "n_unturned": _count(pc.greater(of_good("exif_orientation"), UPRIGHT)),
        "file_notes": dict(sorted((each["values"], each["counts"]) for each in notes.to_pylist())),
        "n_labelled": _count(pc.greater_equal(of_good("label"), 0)),
    }
    classes = _accuracy_of_classes(*map(of_good, ("label", "label_name", "top1")))
    summary |= {name: pc.mean(of_good(name)).as_py() for name in ("top1", "top5")}
    balanced = float(np.mean([each["top1"] for each in classes])) if classes else None
    units = units_of(table)[is_first.to_numpy(zero_copy_only=False)][is_good.to_numpy()]
    ends = {name: mean_and_interval(numbers_of(of_good(name)), units) for name in ("top1", "top5")}
    intervals = {name: [of["low"], of["high"]] for name, of in ends.items()}
    return summary | {"intervals": intervals, "balanced_acc": balanced, "classes": classes}


def _accuracy_of_classes(label: pa.ChunkedArray, name: pa.ChunkedArray, top1: pa.ChunkedArray) -> list[dict[str, Any]]:
    """The share of images of each class that were classified rightly, in the order of the classes."""
    is_right = numbers_of(top1)
    labelled = np.flatnonzero(~np.isnan(is_right))
    labels, first, of_each = np.unique(numbers_of(label)[labelled], return_index=True, return_inverse=True)
    n = np.bincount(of_each)
    names = name.take(pa.array(labelled[first])).cast(pa.string()).to_pylist()
    accuracies = np.bincount(of_each, is_right[labelled]) / n
    columns = labels.astype(int).tolist(), names, n.tolist(), accuracies.tolist()
    return [dict(zip(("label", "name", "n", "top1"), values)) for values in zip(*columns)]


def _count(holds: pa.ChunkedArray) -> int:
    return pc.sum(holds).as_py() or 0
