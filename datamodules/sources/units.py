"""What images can be made of: classes of the network, and channels of its layers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from datamodules.classes import ClassTable, UnknownClassError
from datamodules.errors import DataError


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
    table = ClassTable(class_names)
    units: dict[Unit, None] = {}
    for item in [wanted] if isinstance(wanted, int | str) else wanted:
        text = str(item)
        prefix, colon, number = text.rpartition(":")
        # A class of a user's own network may have a colon in its name.
        if (table.named(text) is not None and layer is None) or not (colon or layer):
            found = _classes(text, table)
        else:
            found = _channels(prefix if colon else str(layer), number, channels or {})
        units |= dict.fromkeys(found)
    if not units:
        raise DataError("data.classes is empty: name at least one class, or all.")
    return list(units)


def _classes(text: str, table: ClassTable) -> list[Unit]:
    if text == "all" and table.named(text) is None:
        return [Unit(index, None, name) for index, name in enumerate(table.names)]
    try:
        index = table.index(text)
    except UnknownClassError as error:
        if error.is_index:
            raise DataError(
                f"data.classes names class {text}; the network has classes 0 to {len(table) - 1}."
            ) from error
        raise DataError(
            f"data.classes names {text!r}, which is no class of the network. Did you mean one of: "
            f"{', '.join(error.near)}?"
        ) from error
    return [Unit(index, None, table.names[index])]


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
