"""Streams what images are to be made of: classes, or channels of layers, each with its seeds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.sources.listing import DataError, first_batches, label_table


class Unit(NamedTuple):
    """A class of the network, or a channel of one of its layers.

    Attributes:
        target: Index of the class or channel.
        layer: The layer; None = the logits.
        name: The class's name, or ``layer:channel``.
    """

    target: int
    layer: str | None
    name: str

    @property
    def stem(self) -> str:
        """How files of it are called."""
        text = f"{self.target:04d}_{self.name}" if self.layer is None else f"{self.layer}_{self.target:04d}"
        return re.sub(r"[^\w.-]+", "_", text)


def parse_units(
    wanted: Sequence[int | str] | int | str,
    class_names: Sequence[str],
    channels: Mapping[str, int] | None = None,
    layer: str | None = None,
) -> list[Unit]:
    """What the user wrote as units, in that order, each once.

    Args:
        wanted: Class names, WordNet ids or indices (a name goes before an index); ``layer:channel``; ``all``, or
            ``layer:all``; or a list of these.
        class_names: Names of the network's classes.
        channels: How many channels each layer has.
        layer: The layer that bare numbers and ``all`` count the channels of. None = they count classes.

    Raises:
        DataError: If there is no such class (suggests near ones), layer (lists them) or channel, or nothing is wanted.

    Example:
        >>> [unit.name for unit in parse_units([1, "cat", "conv:2"], ["cat", "dog"], {"conv": 3})]
        ['dog', 'cat', 'conv:2']
    """
    units: dict[Unit, None] = {}
    for item in [wanted] if isinstance(wanted, int | str) else wanted:
        text = str(item)
        prefix, colon, number = text.rpartition(":")
        # A class of a user's own network may have a colon in its name.
        if (text in class_names and layer is None) or not (colon or layer):
            found = _classes(text, class_names)
        else:
            found = _channels(prefix if colon else str(layer), number, channels or {})
        units |= dict.fromkeys(found)
    if not units:
        raise DataError("data.classes is empty: name at least one class, or all.")
    return list(units)


def _classes(text: str, class_names: Sequence[str]) -> list[Unit]:
    table = label_table(class_names)
    if text in table:
        indices = [table[text]]
    elif text == "all":
        indices = list(range(len(class_names)))
    elif re.fullmatch(r"-?\d+", text):
        if not 0 <= int(text) < len(class_names):
            raise DataError(f"data.classes names class {text}; the network has classes 0 to {len(class_names) - 1}.")
        indices = [int(text)]
    else:
        near = difflib.get_close_matches(text, table, n=5, cutoff=0.5) or list(class_names[:5])
        raise DataError(
            f"data.classes names {text!r}, which is no class of the network. Did you mean one of: {', '.join(near)}?"
        )
    return [Unit(index, None, class_names[index]) for index in indices]


def _channels(layer: str, number: str, channels: Mapping[str, int]) -> list[Unit]:
    if layer not in channels:
        raise DataError(
            f"data.classes names a channel of the layer {layer!r}, which the network does not have; it has "
            f"{', '.join(channels)}."
        )
    n = channels[layer]
    if number == "all":
        return [Unit(k, layer, f"{layer}:{k}") for k in range(n)]
    if not number.isdecimal() or int(number) >= n:
        raise DataError(f"data.classes names {layer}:{number}; the channels of {layer} are 0 to {n - 1}, or all.")
    return [Unit(int(number), layer, f"{layer}:{int(number)}")]


class ClassIndexDataModule(pl.LightningDataModule):
    """Streams classes or channels to make images of, each exactly once over all devices.

    A batch holds ``target`` and ``seed`` and ``index`` (long ``(N,)``), ``layer`` (N names, None for a class), ``name``
    and ``path`` (N strings: what the image's file is called).

    Args:
        classes: What to make images of: indices, names or WordNet ids of classes, ``layer:channel`` units such as
            features.28:17, ``all`` (classes), or a list of these. What is named twice is made once.
        n_images: Images of each, from different seeds, at least 1.
        seed: Seed of the first image of each; the others count up from it.
        batch_size: Images in a batch, on each device: rows and files are written after each.
        class_names: Names of the network's classes, in the order of its outputs.
        channels: How many channels each of the network's layers has.
        layer: The layer whose channels bare numbers name. null = they name classes.

    Attributes:
        read_done: Gives the paths, as rows hold them, of images that need not be made again.

    Example:
        >>> data = ClassIndexDataModule(["dog", 0], n_images=2, class_names=["cat", "dog"])
        >>> next(iter(data.test_dataloader()))["path"]
        ['0001_dog_seed0.png', '0000_cat_seed0.png', '0001_dog_seed1.png', '0000_cat_seed1.png']
    """

    def __init__(
        self,
        classes: list[int | str] | int | str = "all",
        n_images: int = 1,
        seed: int = 0,
        batch_size: int = 4,
        class_names: Sequence[str] = (),
        channels: Mapping[str, int] | None = None,
        layer: str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_images", n_images), ("batch_size", batch_size)):
            if value < 1:
                raise DataError(f"data.{name} must be at least 1, got {value}.")
        units = parse_units(classes, class_names, channels, layer)
        # First one image of every unit: what is left of an interrupted run then covers all that it can.
        self.items = [(unit, seed + k) for k in range(n_images) for unit in units]
        self.batch_size = batch_size
        self.read_done: Callable[[], set[str]] = set
        self.done: set[str] = set()
        self.limit: float = 1.0
        # There may be fewer images left than devices.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def limit_to(self, limit: float) -> bool:
        """Takes a limit: of their share of all images, the processes make the first so many batches together."""
        self.limit = limit
        return True

    def fingerprint(self) -> dict[str, Any]:
        """What tells the images to be made from others, beyond the options, which name them."""
        return {"n_images": len(self.items)}

    def setup(self, stage: str) -> None:
        # Not later: once all ranks are set up, the first may write rows that the others must not take into account.
        self.done = self.read_done()

    def test_dataloader(self) -> DataLoader:
        samples = [
            {**unit._asdict(), "seed": seed, "path": f"{unit.stem}_seed{seed}.png", "index": index}
            for index, (unit, seed) in enumerate(self.items)
        ]
        # Lightning's own sampler repeats items where they do not divide evenly; this neither repeats nor pads.
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        most = world * first_batches(len(samples[::world]), self.batch_size, self.limit)
        todo = [sample for sample in samples[:most] if sample["path"] not in self.done]
        mine = cast(Dataset, todo[rank::world])
        return DataLoader(mine, batch_size=self.batch_size, collate_fn=collate_units)


def collate_units(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> batch: numbers as long ``(N,)``, the rest as lists."""
    batch: dict[str, Any] = {name: [sample[name] for sample in samples] for name in samples[0]}
    return batch | {name: torch.tensor(batch[name], dtype=torch.long) for name in ("target", "seed", "index")}
