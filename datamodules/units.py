"""What images can be made of: classes of the network, and channels of its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from datamodules.classes import AmbiguousClassError, ClassTable, UnknownClassError
from datamodules.errors import DataError, some

EVERY = ("*", "all")
"""What stands for every channel of a layer."""

MOST_BYTES = 160
"""Of a name, in that of a file."""


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
        """How files of it are called; of a long name the first letters, of a long layer the last ones."""
        name = re.sub(r"[^\w.-]+", "_", self.name if self.layer is None else self.layer).encode()
        # File systems count bytes, 255 at the most; the seed, the variant and more are still to come.
        if self.layer is None:
            return f"{self.target:04d}_{name[:MOST_BYTES].decode(errors='ignore')}"
        return f"{name[-MOST_BYTES:].decode(errors='ignore')}_{self.target:04d}"


def parse_units(
    wanted: Sequence[int | str] | int | str,
    class_names: Sequence[str],
    channels: Mapping[str, int] | None = None,
    layer: str | None = None,
) -> list[Unit]:
    """What the user wrote as units, in that order, each once.

    Args:
        wanted: Classes, see :class:`~datamodules.classes.ClassTable`; ``layer:channel``; ``layer:*`` or ``layer:all``,
            every channel of the layer; ``all``; or a list of these. ``all`` is every class, also where one is called
            so, which is then had by its index.
        class_names: Names of the network's classes.
        channels: How many channels each layer has.
        layer: The layer that bare numbers, ``all`` and ``*`` count the channels of. None = they count classes.

    Raises:
        DataError: If there is no such class (suggests near ones), layer (lists them) or channel, if a text may be
            several of them, or nothing is wanted.

    Example:
        >>> [unit.name for unit in parse_units([1, "cat", "conv:2", "fc:*"], ["cat", "dog"], {"conv": 3, "fc": 2})]
        ['dog', 'cat', 'conv:2', 'fc:0', 'fc:1']
    """
    table = ClassTable(class_names)
    units: dict[Unit, None] = {}
    for item in [wanted] if isinstance(wanted, str) or not isinstance(wanted, Iterable) else wanted:
        units |= dict.fromkeys(_units(item, table, channels or {}, layer))
    if not units:
        raise DataError("data.classes is empty: name at least one class, or all.")
    return list(units)


def _units(item: int | str, table: ClassTable, channels: Mapping[str, int], layer: str | None) -> list[Unit]:
    """The units that one item of the list stands for."""
    prefix, colon, number = str(item).rpartition(":")
    if layer is not None:
        return _channels(prefix or layer, number, channels)
    if not isinstance(item, str) or not colon:
        return _classes(item, table)
    if not table.is_named(item):
        return _channels(prefix, number, channels)
    # A class of a user's own network may have a colon in its name.
    if prefix in channels and (number in EVERY or _is_index(number, channels[prefix])):
        raise DataError(
            f"data.classes names {item}, which is a class and may be a channel of the layer {prefix}. Name the class "
            f"by its index, or the channel as {number} with --model.objective "
            f"'{{class_path: Channel, init_args: {{layer: {prefix}}}}}'."
        )
    return _classes(item, table)


def _classes(wanted: int | str, table: ClassTable) -> list[Unit]:
    if wanted == "all":
        table.warn_of_word("data.classes", "all", "every class")
        return [Unit(index, None, name) for index, name in enumerate(table.names)]
    try:
        index = table.index(wanted)
    except AmbiguousClassError as error:
        raise DataError(f"data.classes: {error}") from error
    except UnknownClassError as error:
        if error.is_index:
            raise DataError(
                f"data.classes names class {wanted}; the network has classes 0 to {len(table) - 1}."
            ) from error
        raise DataError(
            f"data.classes names {wanted!r}, which is no class of the network. Did you mean one of: "
            f"{', '.join(error.near)}?"
        ) from error
    return [Unit(index, None, table.names[index])]


def _channels(layer: str, number: str, channels: Mapping[str, int]) -> list[Unit]:
    layer = _label(layer, channels)
    n = channels[layer]
    if number in EVERY:
        return [Unit(k, layer, f"{layer}:{k}") for k in range(n)]
    if not _is_index(number, n):
        raise DataError(
            f"data.classes names {layer}:{number}; the channels of {layer} are 0 to {n - 1}, or *, all of them."
        )
    return [Unit(int(number), layer, f"{layer}:{int(number)}")]


def _label(text: str, channels: Mapping[str, int]) -> str:
    """The one of the labels of ``channels`` that is meant: the layer by its name, or by an end that no other name has.

    Raises:
        DataError: If there is none, or several, as of a layer that runs several times.
    """
    name, at, call = text.partition("@")
    names = {label: label.partition("@")[0] for label in channels}
    near = [label for label in channels if names[label] == name]
    near = near or [label for label in channels if names[label].endswith(f".{name}")]
    # The label of a layer that runs once is its name; its call has the number 0.
    found = [label for label in near if not at or label.endswith(f"@{call}") or (call == "0" and "@" not in label)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{label} ({channels[label]} channels)" for label in found[:6])
        raise DataError(f"data.classes names a channel of {text!r}, which may be one of {len(found)}: {listed}.")
    raise DataError(
        f"data.classes names a channel of the layer {text!r}, which the network does not have; it has "
        f"{some(near or channels, 40)}."
    )


def _is_index(number: str, n: int) -> bool:
    return re.fullmatch("[0-9]{1,9}", number) is not None and int(number) < n
