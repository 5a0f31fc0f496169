"""Which photos excite a class or a channel most: found in one pass over a folder, and kept in the run's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from datamodules.batch import UPRIGHT, Batch, Photos, pixels_of
from datamodules.writing import written_whole
from lightning_modules.gradients.fitting import results_of_parts
from lightning_modules.networks.network import Network
from lightning_modules.results.report import unturned_note
from lightning_modules.results.storage import Row, write_part
from lightning_modules.synthesis import Channel, Objective, responses

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("name", "layer", "path", "photo")),
        *((name, pa.int64()) for name in ("target", "rank")),
        pa.field("value", pa.float64()),
    ]
)
"""A row for each unit (``name``, ``layer``, ``target``) and photo: where it lies (``path``, relative to its folder),
what the unit makes of it (``value``), its ``rank``, 1 = the most, and the file in which it is kept (``photo``)."""

ROWS, FACTS, QUALITY = "exemplars.parquet", "exemplars.json", 90


class Unit(Protocol):
    """A class, or a channel of a layer."""

    @property
    def target(self) -> int: ...

    @property
    def layer(self) -> str | None: ...

    @property
    def name(self) -> str: ...


class Found(NamedTuple):
    """What a search gave.

    Attributes:
        values: Of each unit those of its best photos, the best first, ``(U, n)``; -inf where there are no more.
        indices: Their numbers, ``(U, n)``.
        paths: By their numbers.
        n_photos: How many there were.
        failed: (path, error) of those that could not be read, or of which a unit's value was no number.
        n_unturned: How many of the others ask by their EXIF orientation to be turned, and were not.
        notes: (path, note) of the others that are seen otherwise than in a viewer.
    """

    values: Tensor
    indices: Tensor
    paths: Mapping[int, str]
    n_photos: int
    failed: Sequence[tuple[str, str]]
    n_unturned: int
    notes: Sequence[tuple[str, str]]


def find_exemplars(
    network: Network,
    units: Sequence[Unit],
    objective_of: Callable[[str | None], Objective],
    photos: Photos,
    n: int,
) -> Found:
    """The photos that each unit likes best, by the objective that images of it are made by.

    One pass over all photos serves all units of all layers. Of equal values the earlier photo's comes first.

    Args:
        network: Where the units are.
        units: Classes and channels.
        objective_of: Layer -> the objective of its units; None = of classes.
        photos: What is looked through.
        n: How many photos of each.
    """
    by_layer: dict[str | None, list[int]] = {}
    for number, unit in enumerate(units):
        by_layer.setdefault(unit.layer, []).append(number)
    wanted = {
        layer: (objective_of(layer), [units[number].target for number in numbers])
        for layer, numbers in by_layer.items()
    }
    best = _Best(len(units), n)
    failed: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    n_photos = n_unturned = 0
    for batch in photos.batches():
        failed += batch["failed"]
        n_photos += len(batch["path"]) + len(batch["failed"])
        n_unturned += sum(of["exif_orientation"] > UPRIGHT for of in batch["file_columns"])
        notes += [(path, of["note"]) for path, of in zip(batch["path"], batch["file_columns"]) if of["note"]]
        if batch["path"]:
            parts = results_of_parts(partial(_values, network, wanted), batch, told=True)
            values = torch.cat([part for _, part in parts]).T
            bad = (~values.isfinite()).any(0).tolist()
            failed += [(path, "a unit's value is not finite") for path, is_bad in zip(batch["path"], bad) if is_bad]
            best.add(values, batch)
    # The columns are as the layers have them, not as the units came.
    back = torch.tensor([number for numbers in by_layer.values() for number in numbers]).argsort()
    return Found(best.values[back], best.indices[back], best.paths, n_photos, failed, n_unturned, notes)


class _Best:
    """Of each unit its best photos so far."""

    def __init__(self, n_units: int, n: int) -> None:
        self.values = torch.full((n_units, n), -torch.inf, dtype=torch.float64)
        self.indices = torch.full((n_units, n), -1)
        self.paths: dict[int, str] = {}

    def add(self, values: Tensor, batch: Batch) -> None:
        """Takes the photos of a batch into account, of which the units make ``values``, ``(U, N)``."""
        n_units, n = self.values.shape
        both = torch.cat([self.values, values.masked_fill(~values.isfinite(), -torch.inf)], 1)
        # Stable: of equal values, the earlier photo stays first.
        order = both.sort(dim=1, descending=True, stable=True).indices[:, :n]
        numbers = torch.cat([self.indices, batch["index"].cpu().expand(n_units, -1)], 1)
        self.values, self.indices = both.gather(1, order), numbers.gather(1, order)
        paths = self.paths | dict(zip(batch["index"].tolist(), batch["path"]))
        kept = set(self.indices[self.values > -torch.inf].tolist())
        self.paths = {index: path for index, path in paths.items() if index in kept}


@torch.no_grad()
def _values(network: Network, wanted: Mapping[str | None, tuple[Objective, Sequence[int]]], batch: Batch) -> Tensor:
    """What each unit makes of each image of a batch, float64 ``(N, U)`` on the CPU."""
    like = next(network.parameters())
    images = pixels_of(batch["image"].to(like.device, non_blocking=True))
    images = images.to(like.dtype, memory_format=torch.channels_last)
    outputs = responses(network, images, list(wanted))
    columns = []
    for layer, (objective, targets) in wanted.items():
        output = outputs[layer].float()
        if isinstance(objective, Channel) and output.ndim > 2:
            output = output.flatten(2).mean(2)  # once for all channels
        of_units = torch.tensor(targets, device=like.device)[:, None].expand(-1, len(images))
        columns += [objective(output, target) for target in of_units]
    return torch.stack(columns, 1).cpu().double()


def settle_exemplars(
    network: Network,
    units: Sequence[Unit],
    objective_of: Callable[[str | None], Objective],
    photos: Photos,
    n: int,
    folder: Path,
) -> None:
    """Sees to it that ``folder`` holds what :func:`find_exemplars` finds; it is not searched again for the same.

    That the network is the same, the folder's run sees to. Photos that could not be used are told of.
    """
    objectives = {str(layer): repr(objective_of(layer)) for layer in {unit.layer for unit in units}}
    names = [unit.name for unit in units]
    made_from = {"photos": photos.fingerprint(), "units": names, "n": n, "objectives": objectives}
    facts = _read(folder)
    if facts is None or facts["made_from"] != made_from:
        found = find_exemplars(network, units, objective_of, photos, n)
        facts = _keep(found, units, photos, made_from, folder)
    if facts["n_failed"]:
        some = "; ".join(f"{path}: {error}" for path, error in facts["failed"][:3])
        warnings.warn(
            f"{facts['n_failed']} of the {facts['n_photos']} photos of data.exemplars could not be used: {some}"
            f"{'; ...' if facts['n_failed'] > 3 else ''}.",
            stacklevel=2,
        )
    if n := facts["n_unturned"]:
        warnings.warn(f"Of the photos of data.exemplars, {unturned_note(n)}", stacklevel=2)
    for path, note in facts["notes"][:3]:
        warnings.warn(f"The photo {path} of data.exemplars: {note}.", stacklevel=2)


def _keep(found: Found, units: Sequence[Unit], photos: Photos, made_from: Any, folder: Path) -> dict[str, Any]:
    """Writes rows, the photos as the network sees them and, last, the facts, which it returns."""
    rows: list[Row] = []
    for unit, values, indices in zip(units, found.values.tolist(), found.indices.tolist()):
        named = {"name": unit.name, "layer": unit.layer, "target": unit.target}
        for rank, (value, index) in enumerate(zip(values, indices), start=1):
            if value > -torch.inf:
                photo = {"path": found.paths[index], "photo": _file(index)}
                rows.append({**named, **photo, "rank": rank, "value": value})
    for index in sorted(found.paths):
        with written_whole(folder / _file(index)) as aside:
            Image.fromarray(photos.pixels(index)).save(aside, format="JPEG", quality=QUALITY)
    write_part(folder / ROWS, rows, SCHEMA)
    facts = {"n_photos": found.n_photos, "n_failed": len(found.failed), "failed": [*map(list, found.failed)]}
    facts |= {"n_unturned": found.n_unturned, "notes": [*map(list, found.notes)]}
    with written_whole(folder / FACTS) as aside:
        aside.write_text(json.dumps({**facts, "made_from": made_from}, indent=2) + "\n")
    return facts


def read_facts(folder: Path) -> dict[str, Any]:
    """``n_photos``, ``n_failed`` and ``failed``, (path, error) of each, ``n_unturned`` and ``notes``, (path, note).

    {} where no search was finished.
    """
    return {name: value for name, value in (_read(folder) or {}).items() if name != "made_from"}


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / FACTS
    return json.loads(path.read_text()) if path.exists() else None


def read_exemplars(folder: Path) -> list[Row]:
    """The rows, see :data:`SCHEMA`; [] where no search was finished."""
    return pq.read_table(folder / ROWS).to_pylist() if (folder / FACTS).exists() else []


def _file(index: int) -> str:
    return f"{index:07d}.jpg"
