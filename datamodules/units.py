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
    if not isinstance(item, str):
        return _classes(item, table) if layer is None else _channels(layer, str(item), channels)
    prefix, colon, number = item.rpartition(":")
    if layer is not None:
        return _channels(prefix if colon else layer, number, channels)
    if not colon or table.is_named(item):  # a class of a user's own network may have a colon in its name
        if colon and prefix in channels and (number in EVERY or _is_index(number, channels[prefix])):
            raise DataError(
                f"data.classes names {item}, which is a class and may be a channel of the layer {prefix}. Name the "
                f"class by its index, or the channel as {number} with --model.objective "
                f"'{{class_path: Channel, init_args: {{layer: {prefix}}}}}'."
            )
        return _classes(item, table)
    return _channels(prefix, number, channels)


def _classes(wanted: int | str, table: ClassTable) -> list[Unit]:
    if wanted == "all":
        table.tell_of("data.classes", "all", "every class")
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
    if text in channels:
        return text
    calls: dict[str, list[str]] = {}
    for label in channels:
        calls.setdefault(_place(label)[0], []).append(label)
    name, call = _place(text)
    ends = [name] if name in calls else [layer for layer in calls if layer.endswith(f".{name}")]
    if len(ends) != 1:
        raise DataError(
            f"data.classes names a channel of the layer {text!r}, which "
            + (
                f"may be {' or '.join(ends[:6])}."
                if ends
                else f"the network does not have; it has {some(channels, 40)}."
            )
        )
    (layer,) = ends
    labels = calls[layer]
    if labels == [layer] and call in (None, 0):  # it runs once
        return layer
    if call is not None and f"{layer}@{call}" in labels:
        return f"{layer}@{call}"
    if labels == [layer]:
        raise DataError(f"data.classes: the layer {layer!r} runs once, so there is no {text!r}; name it {layer}.")
    listed = ", ".join(f"{label} ({channels[label]} channels)" for label in labels)
    raise DataError(f"data.classes: the layer {layer!r} runs {len(labels)} times; name one of its calls: {listed}.")


def _place(label: str) -> tuple[str, int | None]:
    """The layer's name and the number of its call, of a label such as ``layer1.0.relu@2``; None = it has none."""
    found = re.fullmatch("(.+)@([0-9]{1,9})", label)
    return (found[1], int(found[2])) if found else (label, None)


def _is_index(number: str, n: int) -> bool:
    return re.fullmatch("[0-9]{1,9}", number) is not None and int(number) < n
