"""Attribution maps as a run keeps them: half the bits of float32 and less, each with a scale; read back, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
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
from lightning_modules.results.arrays import OVERHEAD, Kept, kept_table, list_column

FOLDER = "maps"
OPTION = "model.save_maps"

SCALE = ".scale"
"""After a method's name: the column of what its map is to be multiplied with."""

BOXES, LABELS = pa.list_(pa.list_(pa.float32(), 4)), pa.list_(pa.int64())


class Halved(NamedTuple):
    """Maps in float16, each brought to where float16 tells most apart.

    A map is ``values * scale`` to within ``2^-11`` of each entry, or ``2^-39`` of the map's largest, whichever is more:
    neither a gradient of 1e-20 vanishes nor one of 1e20 overflows. What is NaN or infinite stays so.

    Attributes:
        values: float16 ``(N, C, h, w)``, the largest of each map in [2^14, 2^15].
        scale: A power of two for each map, float64 ``(N,)``.
    """

    values: Tensor
    scale: Tensor


def halved(maps: Tensor) -> Halved:
    """Maps ``(N, C, h, w)`` as they are kept; where they are, so nothing is waited for.

    Example:
        >>> found = halved(torch.tensor([3e-30, -1e-30]).view(1, 1, 1, 2))
        >>> found.values.double() * found.scale
        tensor([[[[ 2.9998e-30, -9.9994e-31]]]], dtype=torch.float64)
    """
    maps = where_float64_is(maps.detach()).double()
    largest = maps.where(maps.isfinite(), 0).abs().amax((1, 2, 3))
    scale = torch.exp2((torch.frexp(largest).exponent - 15).double())
    return Halved((maps / scale.view(-1, 1, 1, 1)).half(), scale)


def table_of_maps(
    good: Sequence[int],
    paths: Sequence[str],
    target: Tensor,
    boxes: tuple[Tensor, Tensor, Tensor],
    maps: Mapping[str, Halved],
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
    places, labels = (of.split(boxes[2].tolist()) for of in boxes[:2])
    columns: list[tuple[pa.Field, pa.Array]] = [
        (pa.field("target", pa.int64()), pa.array(target[good].tolist(), pa.int64())),
        (pa.field("boxes", BOXES), pa.array([places[i].tolist() for i in good], BOXES)),
        (pa.field("box_labels", LABELS), pa.array([labels[i].tolist() for i in good], LABELS)),
    ]
    for name, of in maps.items():
        columns.append(list_column(name, of.values[good].numpy()))
        columns.append((pa.field(name + SCALE, pa.float64()), pa.array(of.scale[good].numpy())))
    return kept_table([paths[i] for i in good], columns, size=",".join(map(str, size)))


def bytes_of_maps(maps: Mapping[str, Tensor]) -> int:
    """What is kept of the maps ``(1, C, h, w)`` of one image, but for its boxes."""
    return sum(2 * of[0].numel() + 8 for of in maps.values()) + OVERHEAD


class KeptMaps(Mapping[str, dict[str, Tensor]]):
    """The maps that a run kept, by the paths of the images: of each, by method, the raw map in float32 ``(C, h, w)``.

    Class activation maps are on the positions of their layer, as the methods computed them; :meth:`enlarged` has them
    at the size of the image. An image that failed has none.

    Attributes:
        methods: Their names.
        size: Height and width of the images.
    """

    def __init__(self, run: Path) -> None:
        self.kept = Kept(run, FOLDER, OPTION)
        names = self.kept.schema.names
        self.methods = [name for name in names if name + SCALE in names]
        height, width = self.kept.schema.metadata[b"size"].split(b",")
        self.size = int(height), int(width)

    def __len__(self) -> int:
        return len(self.kept)

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __getitem__(self, path: str) -> dict[str, Tensor]:
        """The maps of an image as they were kept.

        Raises:
            InputError: If one does not fit in float32, as one that was computed in float64 may.
        """
        row = self.kept[path]
        return {name: _raw(row[name], row[name + SCALE], f"The map {name} of {path}") for name in self.methods}

    def enlarged(self, path: str) -> dict[str, Tensor]:
        """The maps of an image at its size, ``(C, H, W)``, as :func:`~lightning_modules.explain` gives them."""
        return {name: self._enlarged(of[None])[0] for name, of in self[path].items()}

    def _enlarged(self, maps: Tensor) -> Tensor:
        return maps if tuple(maps.shape[2:]) == self.size else on_pixels(maps, cast(Any, _Without(self.size)))


def _raw(values: np.ndarray, scale: float, name: str) -> Tensor:
    raw = torch.from_numpy(values.astype(np.float64) * scale)
    largest = torch.finfo(torch.float32).max
    is_finite = raw.isfinite()
    if (is_finite & (raw.abs() > largest * (1 + 2**-11))).any():
        raise InputError(f"{name} does not fit in float32; read it with read_maps(...).kept, and multiply in float64.")
    # What was rounded up beyond float32 was below that.
    return torch.where(is_finite, raw.clamp(-largest, largest), raw).float()


def read_maps(run: str | Path) -> KeptMaps:
    """The maps that a run kept; those of an image are read when they are asked for.

    Args:
        run: The run's folder.

    Raises:
        InputError: If it kept none.
    """
    return KeptMaps(Path(run))


def score_maps(
    run: str | Path, metrics: Sequence[AttributionMetric], methods: Sequence[str] | None = None
) -> pd.DataFrame:
    """Scores of the maps that a run kept, by metrics that need no network: those of boxes.

    They are those of the run up to how maps are kept, see :class:`Halved`; pixels that float16 cannot tell apart tie.

    Args:
        run: The run's folder.
        metrics: Such as ``PointingGame()``, ``EnergyInBox()``, ``ClassDiscrimination()``.
        methods: Whose maps. None = of all that were kept.

    Returns:
        A row for each image and method, with ``path``, ``method`` and a column for each score.

    Raises:
        InputError: If there are no maps, none of a method, or a metric needs more than maps and boxes.
    """
    kept = read_maps(run)
    if unknown := [name for name in methods or () if name not in kept.methods]:
        raise InputError(f"{run} kept no maps of {unknown[0]}, only of {', '.join(kept.methods)}.")
    rows = []
    for path in kept:
        of_image, maps = kept.kept[path], kept.enlarged(path)
        boxes = torch.tensor(of_image["boxes"], dtype=torch.float32).view(-1, 4)
        labels = torch.tensor(of_image["box_labels"], dtype=torch.long)
        batch = {"path": [path], "boxes": boxes, "box_labels": labels, "n_boxes": torch.tensor([len(boxes)])}
        known = _Without(kept.size, torch.tensor([of_image["target"]]))
        for name in kept.methods if methods is None else methods:
            row: dict[str, Any] = {"path": path, "method": name}
            for metric in metrics:
                found = _score(metric, maps[name][None], known, batch)
                row |= {column: values[0].tolist() for column, values in found.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def _score(metric: AttributionMetric, maps: Tensor, known: _Without, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        scores = metric.score(maps, cast(Any, known), cast(Batch, batch), cast(Any, known))
        return without_degenerate(scores, maps)
    except (_NeedsMore, KeyError) as error:
        raise InputError(
            f"{metric!r} cannot be computed of kept maps alone: it needs {error.args[0]!r} besides. Ask for it in the "
            "run: --model.metrics."
        ) from error


class _NeedsMore(AttributeError):
    """Something of a forward pass was asked for that is not kept."""


class _Without:
    """What is known of a forward pass from what was kept: the size of the images, and the targets; nothing else.

    Attributes:
        target: long ``(N,)``.
        images: Their shape and device, without pixels.
    """

    def __init__(self, size: tuple[int, int], target: Tensor | None = None) -> None:
        self.target = torch.zeros(1, dtype=torch.long) if target is None else target
        self.images = _Shaped(len(self.target), size)

    def __getattr__(self, name: str) -> Any:
        raise _NeedsMore(name)


class _Shaped:
    def __init__(self, n: int, size: tuple[int, int]) -> None:
        self.shape = torch.Size((n, 3, *size))
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        raise _NeedsMore("images")
