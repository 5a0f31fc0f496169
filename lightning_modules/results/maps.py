"""Attribution maps as a run stores them: in float16, each with a scale; read back, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from datamodules.batch import Batch
from lightning_modules.errors import InputError
from lightning_modules.host import where_float64_is
from lightning_modules.methods.cam import on_pixels
from lightning_modules.metrics.base import AttributionMetric, without_degenerate
from lightning_modules.results.arrays import OVERHEAD, StoredArrays, array_column, table_of_arrays

FOLDER = "maps"
OPTION = "model.save_maps"

SCALE = ".scale"
"""After a method's name: the column of what its map is to be multiplied with."""

BOXES, LABELS = pa.list_(pa.list_(pa.float32(), 4)), pa.list_(pa.int64())


class ScaledMaps(NamedTuple):
    """Maps in float16, each scaled to where float16 has the finest steps.

    A map is ``values * scale`` to within ``2^-11`` of each entry, or ``2^-39`` of the map's largest, whichever is more:
    neither a gradient of 1e-20 vanishes nor one of 1e20 overflows. NaN and infinity stay so.

    Attributes:
        values: float16 ``(N, C, h, w)``, the largest of each map in [2^14, 2^15].
        scale: A power of two for each map, float64 ``(N,)``.
    """

    values: Tensor
    scale: Tensor


def scaled_to_half(maps: Tensor) -> ScaledMaps:
    """Maps ``(N, C, h, w)`` as they are stored; on their device, without waiting for it.

    Example:
        >>> found = scaled_to_half(torch.tensor([3e-30, -1e-30]).view(1, 1, 1, 2))
        >>> found.values.double() * found.scale
        tensor([[[[ 2.9998e-30, -9.9994e-31]]]], dtype=torch.float64)
    """
    maps = where_float64_is(maps.detach()).double()
    largest = maps.where(maps.isfinite(), 0).abs().amax((1, 2, 3))
    scale = torch.exp2((torch.frexp(largest).exponent - 15).double())
    return ScaledMaps((maps / scale.view(-1, 1, 1, 1)).half(), scale)


def table_of_maps(
    good: Sequence[int],
    paths: Sequence[str],
    target: Tensor,
    boxes: tuple[Tensor, Tensor, Tensor],
    maps: Mapping[str, ScaledMaps],
    size: tuple[int, int],
) -> pa.Table:
    """A row for each image that did not fail: its maps by their methods, and what scores of them need besides.

    All tensors lie on the host.

    Args:
        good: The numbers of the images that did not fail, of N.
        paths: Of the images.
        target: The class that the maps explain, long ``(N,)``.
        boxes: ``boxes``, ``box_labels`` and ``n_boxes`` of the batch.
        maps: By method.
        size: Height and width of the images.
    """
    places, labels = (tensor.split(boxes[2].tolist()) for tensor in boxes[:2])
    columns: list[tuple[pa.Field, pa.Array]] = [
        (pa.field("target", pa.int64()), pa.array(target[good].tolist(), pa.int64())),
        (pa.field("boxes", BOXES), pa.array([places[i].tolist() for i in good], BOXES)),
        (pa.field("box_labels", LABELS), pa.array([labels[i].tolist() for i in good], LABELS)),
    ]
    for name, scaled in maps.items():
        columns.append(array_column(name, scaled.values[good].numpy()))
        columns.append((pa.field(name + SCALE, pa.float64()), pa.array(scaled.scale[good].numpy())))
    return table_of_arrays([paths[i] for i in good], columns, size=",".join(map(str, size)))


def bytes_of_maps(maps: Mapping[str, Tensor]) -> int:
    """How many bytes the maps ``(1, C, h, w)`` of one image take, without its boxes."""
    return sum(2 * attribution[0].numel() + 8 for attribution in maps.values()) + OVERHEAD


class StoredMaps(Mapping[str, dict[str, Tensor]]):
    """The maps that a run stored, by the paths of the images: method -> raw map, float32 ``(C, h, w)``.

    Class activation maps are on the positions of their layer, as the methods computed them; :meth:`enlarged` has them
    at the size of the image. An image that failed has none.

    Attributes:
        methods: Their names.
        size: Height and width of the images.
        stored: What :func:`scaled_to_half` made of the maps, and their targets and boxes, by the paths of the images.
    """

    def __init__(self, run: Path) -> None:
        self.stored = StoredArrays(run, FOLDER, OPTION)
        names = self.stored.schema.names
        self.methods = [name for name in names if name + SCALE in names]
        height, width = self.stored.schema.metadata[b"size"].split(b",")
        self.size = int(height), int(width)

    def __len__(self) -> int:
        return len(self.stored)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __getitem__(self, path: str) -> dict[str, Tensor]:
        """The maps of an image.

        Raises:
            InputError: If one does not fit in float32, as one that was computed in float64 may.
        """
        row = self.stored[path]
        return {name: _raw(row[name], row[name + SCALE], f"The map {name} of {path}") for name in self.methods}

    def enlarged(self, path: str) -> dict[str, Tensor]:
        """The maps of an image at its size, ``(C, H, W)``, as :func:`~lightning_modules.explain` gives them."""
        images = _pass_of(self.size)
        maps = {name: attribution[None] for name, attribution in self[path].items()}
        return {
            name: (each if tuple(each.shape[2:]) == self.size else on_pixels(each, images))[0]
            for name, each in maps.items()
        }


def _raw(values: np.ndarray, scale: float, name: str) -> Tensor:
    raw = torch.from_numpy(values.astype(np.float64) * scale)
    largest = torch.finfo(torch.float32).max
    is_finite = raw.isfinite()
    if (is_finite & (raw.abs() > largest * (1 + 2**-11))).any():
        raise InputError(
            f"{name} does not fit in float32; read it with read_maps(...).stored, and multiply in float64."
        )
    # What was rounded up beyond float32 was below that.
    return torch.where(is_finite, raw.clamp(-largest, largest), raw).float()


def read_maps(run: str | Path) -> StoredMaps:
    """The maps that a run stored; those of an image are read when they are asked for.

    Args:
        run: The run's folder.

    Raises:
        InputError: If it stored none.
    """
    return StoredMaps(Path(run))


def score_maps(
    run: str | Path, metrics: Sequence[AttributionMetric], methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """Scores of the maps that a run stored, by metrics that need no network: those of boxes.

    They are those of the run up to rounding, see :class:`ScaledMaps`; pixels that float16 cannot tell apart tie.

    Args:
        run: The run's folder.
        metrics: Such as ``PointingGame()``, ``EnergyInBox()``, ``ClassDiscrimination()``.
        methods: Whose maps. None = of all that were stored.

    Returns:
        A row for each image and method, with ``path``, ``method`` and a column for each score.

    Raises:
        InputError: If there are no maps, none of a method, or a metric needs more than maps and boxes.
    """
    found = read_maps(run)
    if unknown := [name for name in methods or () if name not in found.methods]:
        raise InputError(f"{run} stored no maps of {unknown[0]}, only of {', '.join(found.methods)}.")
    rows = []
    for path in found:
        stored, maps = found.stored[path], found.enlarged(path)
        boxes = torch.tensor(stored["boxes"], dtype=torch.float32).view(-1, 4)
        labels = torch.tensor(stored["box_labels"], dtype=torch.long)
        batch = {"path": [path], "boxes": boxes, "box_labels": labels, "n_boxes": torch.tensor([len(boxes)])}
        known = _pass_of(found.size, stored["target"])
        for name in found.methods if methods is None else methods:
            row: dict[str, Any] = {"path": path, "method": name}
            for metric in metrics:
                scores = _score(metric, maps[name][None], known, batch)
                row |= {column: values[0].tolist() for column, values in scores.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _score(metric: AttributionMetric, maps: Tensor, known: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        return without_degenerate(metric.score(maps, known, cast(Batch, batch), known), maps)
    except (AttributeError, KeyError) as error:
        needed = error.name if isinstance(error, AttributeError) else error.args[0]
        raise InputError(
            f"{metric!r} cannot be computed of stored maps alone: it needs {needed!r} besides. Ask for it in the run: "
            "--model.metrics."
        ) from error


def _pass_of(size: tuple[int, int], target: int = 0) -> Any:
    """What the stored arrays say of the pass of one image: its size and target, but no pixels and no network."""
    images = SimpleNamespace(shape=torch.Size((1, 3, *size)), device=torch.device("cpu"))
    return SimpleNamespace(images=images, target=torch.tensor([target]))
