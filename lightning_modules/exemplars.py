"""The photos that excite a class or a channel most: found in one pass over a folder, and stored in the run's."""

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
"""A row for each unit (``name``, ``layer``, ``target``) and photo: its ``path`` relative to its folder, the unit's
activation (``value``), its ``rank``, 1 = the largest, and the file with a copy of it (``photo``)."""

ROWS, FACTS, QUALITY = "exemplars.parquet", "exemplars.json", 90


class Unit(Protocol):
    """A class, or a channel of a layer."""

    @property
    def target(self) -> int: ...

    @property
    def layer(self) -> str | None: ...

    @property
    def name(self) -> str: ...


class Exemplars(NamedTuple):
    """The photos that excite U units most.

    Attributes:
        values: The activations of each unit, the largest first, ``(U, n)``; -inf if there are fewer photos.
        indices: The numbers of these photos, ``(U, n)``.
        paths: Number -> path.
        facts: ``n_photos``, ``n_failed``, ``failed``: (path, error) of photos that could not be read or gave a value
            that is not finite, ``n_unturned``: photos whose EXIF orientation was ignored, and ``notes``: (path, note).
    """

    values: Tensor
    indices: Tensor
    paths: Mapping[int, str]
    facts: dict[str, Any]


def find_exemplars(
    network: Network,
    units: Sequence[Unit],
    objective_of: Callable[[str | None], Objective],
    photos: Photos,
    n: int,
) -> Exemplars:
    """The photos that excite each unit most, by the objective that images of it are made by.

    One pass over all photos serves all units of all layers. Of equal values the earlier photo's comes first.

    Args:
        network: Where the units are.
        units: Classes and channels.
        objective_of: Layer -> the objective of its units; None = of classes.
        photos: The photos.
        n: How many photos of each unit.
    """
    by_layer: dict[str | None, list[int]] = {}
    for number, unit in enumerate(units):
        by_layer.setdefault(unit.layer, []).append(number)
    wanted = {
        layer: (objective_of(layer), [units[number].target for number in numbers])
        for layer, numbers in by_layer.items()
    }
    best = torch.full((len(units), n), -torch.inf, dtype=torch.float64)
    indices = torch.full((len(units), n), -1)
    paths: dict[int, str] = {}
    failed: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    n_photos = n_unturned = 0
    for batch in photos.batches():
        failed += batch["failed"]
        n_photos += len(batch["path"]) + len(batch["failed"])
        n_unturned += sum(columns["exif_orientation"] > UPRIGHT for columns in batch["file_columns"])
        notes += [(path, each["note"]) for path, each in zip(batch["path"], batch["file_columns"]) if each["note"]]
        if not batch["path"]:
            continue
        parts = results_of_parts(partial(_values, network, wanted), batch, has_warned=True)
        values = torch.cat([part for _, part in parts]).T
        is_bad = ~values.isfinite()
        failed += [
            (path, "a unit's value is not finite") for path, bad in zip(batch["path"], is_bad.any(0).tolist()) if bad
        ]
        both = torch.cat([best, values.masked_fill(is_bad, -torch.inf)], 1)
        # Stable: of equal values, the earlier photo stays first.
        order = both.sort(dim=1, descending=True, stable=True).indices[:, :n]
        numbers = torch.cat([indices, batch["index"].cpu().expand(len(units), -1)], 1)
        best, indices = both.gather(1, order), numbers.gather(1, order)
        paths |= dict(zip(batch["index"].tolist(), batch["path"]))
        kept = set(indices[best > -torch.inf].tolist())
        paths = {index: path for index, path in paths.items() if index in kept}
    # The rows are in the order of the layers, not of the units.
    back = torch.tensor([number for numbers in by_layer.values() for number in numbers]).argsort()
    facts = {"n_photos": n_photos, "n_failed": len(failed), "failed": [*map(list, failed)]}
    facts |= {"n_unturned": n_unturned, "notes": [*map(list, notes)]}
    return Exemplars(best[back], indices[back], paths, facts)


@torch.no_grad()
def _values(network: Network, wanted: Mapping[str | None, tuple[Objective, Sequence[int]]], batch: Batch) -> Tensor:
    """The activation of each unit for each image of a batch, float64 ``(N, U)`` on the CPU."""
    like = next(network.parameters())
    images = pixels_of(batch["image"].to(like.device, non_blocking=True))
    images = images.to(like.dtype, memory_format=torch.channels_last)
    outputs = responses(network, images, list(wanted))
    columns = []
    for layer, (objective, targets) in wanted.items():
        output = outputs[layer].float()
        if isinstance(objective, Channel) and output.ndim > 2:
            output = output.flatten(2).mean(2)  # once for all channels
        targets_of_images = torch.tensor(targets, device=like.device)[:, None].expand(-1, len(images))
        columns += [objective(output, target) for target in targets_of_images]
    return torch.stack(columns, 1).cpu().double()


def update_exemplars(
    network: Network,
    units: Sequence[Unit],
    objective_of: Callable[[str | None], Objective],
    photos: Photos,
    n: int,
    folder: Path,
) -> None:
    """Stores what :func:`find_exemplars` finds in ``folder``, unless it is there from an earlier, equal search.

    That the network is the same, the run of the folder checks. Warns of photos that could not be used.
    """
    objectives = {str(layer): repr(objective_of(layer)) for layer in {unit.layer for unit in units}}
    names = [unit.name for unit in units]
    made_from = {"photos": photos.fingerprint(), "units": names, "n": n, "objectives": objectives}
    facts = _read(folder)
    if facts is None or facts["made_from"] != made_from:
        found = find_exemplars(network, units, objective_of, photos, n)
        facts = _store(found, units, photos, made_from, folder)
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


def _store(found: Exemplars, units: Sequence[Unit], photos: Photos, made_from: Any, folder: Path) -> dict[str, Any]:
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
    with written_whole(folder / FACTS) as aside:
        aside.write_text(json.dumps({**found.facts, "made_from": made_from}, indent=2) + "\n")
    return found.facts


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
