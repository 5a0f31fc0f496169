"""Names of a network's outputs as people keep them: lists, dicts either way round, text files, JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from datamodules.batch import ClassTable
from lightning_modules.errors import InputError
from lightning_modules.networks.libraries.torchvision_facts import imagenet_class_names

_WNID = re.compile(r"n\d{8}")


def read_class_names(said: Any) -> list[str]:
    """The name of each output, in order, from any of the forms in which they are kept.

    Args:
        said: Names (whole numbers are names too) in a list, a tuple or an array; a dict index -> name or name -> index,
            with the indices 0, 1, ... in any order; or the path of a file. A text file has a name a line, or an index
            and a name, or a WordNet id and a name; a JSON file has a list or a dict. In place of a name may stand
            ``[WordNet id, name]``, as in the JSON that Keras has of ImageNet; ids tell names apart that occur twice.

    Raises:
        InputError: If it is something else, or the order or a name is in doubt.

    Example:
        >>> read_class_names(["cat", "dog"]), read_class_names({"dog": 1, "cat": 0}), read_class_names({1: "b", 0: "a"})
        (['cat', 'dog'], ['cat', 'dog'], ['a', 'b'])
    """
    if isinstance(said, str | Path):
        return _read_file(said)
    return _names(said, "class_names")


def _read_file(said: str | Path) -> list[str]:
    path = Path(said).expanduser()
    if path.is_dir():
        raise InputError(
            f"class_names is {path}, a folder; it should be a list of names, or a file with a name a line."
        )
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} should be a text file with a name a line, in UTF-8; it is not: {error}.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"class_names is {str(said)!r}, and no such file can be read; it should be a list such as [cat, dog], or a "
            "file with a name a line."
        ) from error
    if path.suffix == ".json" or text.lstrip()[:1] in ("[", "{"):
        try:
            return _names(json.loads(text, object_pairs_hook=_object), f"{path}")
        except (json.JSONDecodeError, RecursionError) as error:
            if path.suffix == ".json":
                raise InputError(f"{path} is not JSON: {error}.") from error
    return _names(_lines(path, text), f"{path}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of JSON; without this, of two equal keys the last one would win unseen."""
    if twice := _first_twice([key for key, _ in pairs]):
        raise InputError(f"class_names: the JSON has the key {twice!r} twice.")
    return dict(pairs)


def _lines(path: Path, text: str) -> list[Any] | dict[int, str]:
    """What the lines of a text file say: names, [WordNet id, name], or index -> name."""
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise InputError(f"{path} should have a name a line, but line {lines.index('') + 1} is empty.")
    with_ids = [re.fullmatch(rf"({_WNID.pattern})[\s,:]+(.+)", line) for line in lines]
    if lines and all(with_ids):
        return [list(match.groups()) for match in with_ids if match]
    numbered = [re.fullmatch(r"(\d+)(?:\s*[:,;]\s*|\s+)(.+)", line) for line in lines]
    indices = [int(match[1]) for match in numbered if match]
    if lines and sorted(indices) == list(range(len(lines))):
        return {int(match[1]): match[2] for match in numbered if match}
    return list(lines)


def _names(said: Any, where: str) -> list[str]:
    """As :func:`read_class_names`, of what a file or the caller holds; ``where`` is for messages."""
    if isinstance(said, Mapping):
        said = _in_order(said.get("id2label", said), where)
    if hasattr(said, "tolist"):  # arrays, tensors, and columns of a table
        said = said.tolist()
    if isinstance(said, str | bytes | set | frozenset) or not isinstance(said, Iterable):
        raise InputError(f"{where} should be a list of names, in the order of the outputs, got {_short(said)}.")
    entries = list(said)
    if not entries:
        raise InputError(f"{where} holds no names.")
    ids = [entry[0] if _is_pair(entry) else "" for entry in entries]
    names = [_name(entry[1] if _is_pair(entry) else entry, where, at) for at, entry in enumerate(entries)]
    imagenet = imagenet_class_names()
    if all(ids) and len(ids) == len(imagenet):
        table = ClassTable(imagenet)
        if all(table.named(wnid) == index for index, wnid in enumerate(ids)):
            return imagenet
    if names == imagenet:
        return names
    if all(ids) and len(set(ids)) == len(ids):
        names = [f"{name} ({wnid})" if names.count(name) > 1 else name for name, wnid in zip(names, ids, strict=True)]
    return names


def _is_pair(entry: Any) -> bool:
    pair = isinstance(entry, list | tuple) and len(entry) == 2
    return pair and isinstance(entry[0], str) and bool(_WNID.fullmatch(entry[0]))


def _in_order(said: Any, where: str) -> list[Any]:
    """The names in a dict, of index -> name or of name -> index.

    Raises:
        InputError: If neither side holds the indices 0, 1, ..., or both do and it makes a difference.
    """
    if not isinstance(said, Mapping) or not said:
        raise InputError(f"{where} should hold names, got {_short(said)}.")
    keys, values = [_index(key) for key in said], [_index(value) for value in said.values()]
    readings = []
    for positions, names in ((keys, said.values()), (values, said)):
        named: dict[Any, Any] = dict(zip(positions, names, strict=True))
        if set(named) == set(range(len(said))):
            readings.append([named[index] for index in range(len(said))])
    if not readings:
        indices = sorted(index for index in (keys if None not in keys else values) if index is not None)
        held = f"has {indices[0]} to {indices[-1]} for {len(said)} names" if indices else "has none"
        raise InputError(f"{where} should have the indices 0 to {len(said) - 1}, each once, but {held}.")
    if any([str(name) for name in reading] != [str(name) for name in readings[0]] for reading in readings):
        raise InputError(
            f"{where} has whole numbers as keys and as values, so either may be the names; write them as a list."
        )
    return readings[0]


def _index(value: Any) -> int | None:
    """The index that somebody wrote as a number or in digits; None = something else."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _name(entry: Any, where: str, at: int) -> str:
    if hasattr(entry, "item") and getattr(entry, "ndim", None) == 0:
        entry = entry.item()
    if isinstance(entry, bool | float) or entry is None:
        raise InputError(
            f"{where}: output {at} is called {entry!r}, which is no text; if it is a name, put it in quotes."
        )
    if not isinstance(entry, str | int):
        raise InputError(f"{where}: output {at} is called {_short(entry)}, which is not a name.")
    name = str(entry)
    if not name.strip() or any(unicodedata.category(c) in ("Cc", "Cs") for c in name):
        raise InputError(f"{where}: output {at} is called {name!r}, which cannot be read.")
    return name


def _first_twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
