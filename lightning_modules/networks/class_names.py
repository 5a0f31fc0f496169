"""Classes: the names of a network's outputs as people keep them, and a class as a person names it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.batch import AmbiguousClassError, ClassTable, UnknownClassError
from lightning_modules.errors import InputError
from lightning_modules.networks.libraries.torchvision import imagenet_class_names

TARGET_WORDS = {
    "both": "the class that each image is predicted to be, and the label's where it is another",
    "label": "the class of each image's folder",
    "predicted": "the class that each image is predicted to be",
    "least_likely": "the class that each image is least likely to be",
}
"""What may stand in place of a class, and what it means."""

_WNID = r"n\d{8}"


def find_class(wanted: Any, class_names: Sequence[str]) -> int:
    """The index of a class as a person names it, see :class:`~datamodules.classes.ClassTable`.

    Raises:
        InputError: If there is no such class, or several; suggests near ones, or lists them.
    """
    table = ClassTable(class_names)
    try:
        return table.index(wanted)
    except AmbiguousClassError as error:
        raise InputError(str(error)) from error
    except UnknownClassError as error:
        if error.is_index:
            raise InputError(f"There is no class {wanted}: the network has classes 0 to {len(table) - 1}.") from error
        near = ", ".join(error.near)
        raise InputError(f"The network has no class {wanted!r}. Did you mean one of: {near}?") from error


def find_target(target: Any, class_names: Sequence[str], words: Sequence[str]) -> str | int:
    """The class that the option ``model.target`` means: its index, or one of the option's words.

    A word means the same with every network. A class that is called so is had by its index, with a warning.

    Args:
        target: What the user wrote.
        class_names: Names of the network's classes.
        words: Those of :data:`TARGET_WORDS` that the option has.

    Raises:
        InputError: As :func:`find_class`.

    Example:
        >>> find_target("label", ["cat", "dog"], ["label"]), find_target("dog", ["cat", "dog"], ["label"])
        ('label', 1)
    """
    if isinstance(target, str) and target in words:
        ClassTable(class_names).warn_of_word("model.target", target, TARGET_WORDS[target])
        return target
    return find_class(target, class_names)


def read_class_names(given: Any) -> list[str]:
    """The name of each output, in order, from any of the forms in which they are kept.

    Args:
        given: Names (whole numbers are names too) in a list, a tuple or an array; a dict index -> name or name ->
            index, with the indices 0, 1, ... in any order; or the path of a file. A text file has a name a line, or an
            index and a name, or a WordNet id and a name; a JSON file has a list or a dict. In place of a name may stand
            ``[WordNet id, name]``, as in the JSON that Keras has of ImageNet; names that occur twice get their ids.

    Raises:
        InputError: If it is something else, or the order or a name is in doubt.

    Example:
        >>> read_class_names(["cat", "dog"]), read_class_names({"dog": 1, "cat": 0}), read_class_names({1: "b", 0: "a"})
        (['cat', 'dog'], ['cat', 'dog'], ['a', 'b'])
    """
    where = "class_names"
    if isinstance(given, str | Path):
        where, given = str(given), _read_file(Path(given).expanduser())
    if isinstance(given, Mapping):
        given = _in_order(given.get("id2label", given), where)
    if hasattr(given, "tolist"):  # arrays, tensors, and columns of a table
        given = given.tolist()
    if isinstance(given, str | bytes | set | frozenset) or not isinstance(given, Iterable):
        raise InputError(f"{where} should be a list of names, in the order of the outputs, got {given!r:.60}.")
    entries = [tuple(entry) if _has_wnid(entry) else ("", entry) for entry in given]
    if not entries:
        raise InputError(f"{where} holds no names.")
    for index, (_, name) in enumerate(entries):
        is_text = isinstance(name, str | int) and not isinstance(name, bool)
        if not is_text or not f"{name}".strip() or re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", f"{name}"):
            raise InputError(
                f"{where}: output {index} is called {name!r:.60}; names are text, in YAML in quotes if need be."
            )
    ids, names = [wnid for wnid, _ in entries], [str(name) for _, name in entries]
    imagenet = ClassTable(imagenet_class_names())
    if all(ids) and [imagenet.named(wnid) for wnid in ids] == list(range(len(imagenet))):
        return imagenet.names
    if all(ids) and len(set(ids)) == len(ids):
        return [f"{name} ({wnid})" if names.count(name) > 1 else name for wnid, name in zip(ids, names, strict=True)]
    return names


def _read_file(path: Path) -> Any:
    """What a file of names holds: a list, or index -> name."""
    if path.is_dir():
        raise InputError(f"class_names is {path}, a folder; it should be a list of names, or a file of a name a line.")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} should be a text file with a name a line, in UTF-8; it is not: {error}.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"class_names is {str(path)!r}, and no such file can be read; it should be a list such as [cat, dog], or a "
            "file with a name a line."
        ) from error
    if path.suffix == ".json" or text.lstrip().startswith(("[", "{")):
        try:
            return json.loads(text, object_pairs_hook=_dict_of_unique_keys)
        except (json.JSONDecodeError, RecursionError) as error:
            if path.suffix == ".json":
                raise InputError(f"{path} is not JSON: {error}.") from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    if "" in lines:
        raise InputError(f"{path} should have a name a line, but line {lines.index('') + 1} is empty.")
    with_ids, numbered = ([re.fullmatch(rf"({key})[\s:,;]+(.+)", line) for line in lines] for key in (_WNID, r"\d+"))
    if all(with_ids):
        return [match.groups() for match in with_ids if match]
    by_index = {int(match[1]): match[2] for match in numbered if match}
    return by_index if sorted(by_index) == list(range(len(lines))) else lines


def _dict_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys in JSON the last one would win unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InputError(f"class_names: the JSON has a key twice, among {', '.join(key for key, _ in pairs)[:200]}.")
    return found


def _has_wnid(entry: Any) -> bool:
    is_pair = isinstance(entry, list | tuple) and len(entry) == 2 and isinstance(entry[0], str)
    return is_pair and re.fullmatch(_WNID, entry[0]) is not None


def _in_order(given: Any, where: str) -> list[Any]:
    """The names in a dict, of index -> name or of name -> index.

    Raises:
        InputError: If neither side holds the indices 0, 1, ..., or both do and it makes a difference.
    """
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{where} should hold names, got {given!r:.60}.")
    readings = []
    for indices, names in ((list(given), list(given.values())), (list(given.values()), list(given))):
        by_index = {
            int(str(index)): name for index, name in zip(indices, names) if re.fullmatch(r"\d{1,9}", str(index))
        }
        if sorted(by_index) == list(range(len(given))):
            readings.append([by_index[index] for index in range(len(given))])
    if not readings:
        raise InputError(f"{where} should have the indices 0 to {len(given) - 1}, each once, got {given!r:.100}.")
    if any([str(name) for name in reading] != [str(name) for name in readings[0]] for reading in readings):
        raise InputError(
            f"{where} has whole numbers as keys and as values, so either may be the names; write them as a list."
        )
    return readings[0]
