"""What the rows of any run come to: how many images, how many failed, accuracy."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from datamodules.batch import UPRIGHT
from lightning_modules.results.rows.images import Rows
from lightning_modules.results.rows.stored import codes_of


def summarize_images(table: Rows) -> dict[str, Any]:
    """Counts of images and accuracy, from rows of which an image may have several.

    ``top1`` and ``top5`` are shares of the labelled images that did not fail, None where there is nothing to tell.
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
    return summary | {name: pc.mean(of_good(name)).as_py() for name in ("top1", "top5")}


def _count(holds: pa.ChunkedArray) -> int:
    return pc.sum(holds).as_py() or 0
