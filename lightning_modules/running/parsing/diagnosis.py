"""What is wrong with a command line that the parser refuses, in a sentence that says what would have been right.

Nothing here reads the parser's message: each option is tried by itself, and of the first that does not fit its type it
is said what the type asks for.
"""

from __future__ import annotations

import difflib
import inspect
import os
import pkgutil
import sys
import types
import typing
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt, get_registered_type

from datamodules.text import Names, Text, Texts
from lightning_modules.running.parsing.written import AS_WRITTEN, Limit, load

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Text: "a text"}
KINDS |= {Texts: "a text or a list of texts", Names: "a list of names, or a file of them", dict: "a table"}
KINDS |= {Limit: "a number of batches, or a share", PositiveInt: "a whole number of at least 1"}
KINDS |= {NonNegativeInt: "a whole number of at least 0"}
OF_EVERY_PARSER = ("config", "help", "print_config")
MEANT_FIRST = ("data.root", "data.classes", "network", "out")
"""What a word that belongs to no option may be a value of."""

NOT_YAML = "is not YAML: a space has to follow each colon and comma"


class Option(NamedTuple):
    """The type of an option, and how many words follow it."""

    annotation: Any
    n_values: int = 1


def annotations_of(maker: Callable[..., Any]) -> dict[str, Any]:
    """The types of what a class or a function takes, by name; of a class, also those that it hands on to its bases."""
    found: dict[str, Any] = {}
    for each in [vars(base).get("__init__") for base in maker.__mro__[::-1]] if inspect.isclass(maker) else [maker]:
        with suppress(NameError, TypeError):  # of a stranger's names that only a type checker imports
            hints = typing.get_type_hints(each)
            for unpacked in [hint for hint in hints.values() if typing.get_origin(hint) is typing.Unpack]:
                hints |= typing.get_type_hints(typing.get_args(unpacked)[0])
            found |= hints
    return found


def given_options(words: Sequence[str], known: Mapping[str, Option]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The options of a command line with their values, also those in groups and files, and the words of none.

    Example:
        >>> given_options(["--out", "run", "--data", "{root: 012}", "x"], {"data.root": Option(str)})
        ([('out', 'run'), ('data.root', '012')], ['x'])
    """
    found: list[tuple[str, Any]] = []
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not (word.startswith("-") and word.lstrip("-")[:1].isalpha()):
            others.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.removesuffix("+")
        n_values = known[name].n_values if name in known else 1
        if not equals and n_values:
            value = left.pop(0) if left and not left[0].startswith("--") else ""
            del left[: n_values - 1]
        if name == "config" or is_group(name, known):
            found += _inside("" if name == "config" else name, value, known)
        if not is_group(name, known):
            found.append((name, value if n_values == 1 or equals else None))
    return found, others


def is_group(name: str, known: Iterable[str]) -> bool:
    """Whether a name is that of several options, ``name.option``."""
    return name not in known and any(option.startswith(f"{name}.") for option in known)


def _inside(name: str, value: Any, known: Mapping[str, Option]) -> Iterator[tuple[str, Any]]:
    """The options of a group that is given as YAML or as a file of it; of a whole configuration, without a name."""
    group = value
    with suppress(OSError, ValueError):
        is_file = isinstance(value, str) and os.path.isfile(value)
        group = _loaded(Path(value).read_text() if is_file else value)
    if not isinstance(group, dict):
        yield from [(name, value)] if name else []
        return
    for key, each in group.items():
        inner = f"{name}.{key}" if name else key
        yield from _inside(inner, each, known) if is_group(inner, known) else [(inner, each)]


def _loaded(value: Any) -> Any:
    with suppress(yaml.YAMLError, ValueError):
        return load(value) if isinstance(value, str) else value
    return value


def what_is_wrong(
    words: Sequence[str], known: Mapping[str, Option], takes_words: bool, defaults: Namespace
) -> str | None:
    """The sentence about the first thing that is wrong with a command line; None if nothing is found.

    Args:
        words: Of the command line.
        known: The options.
        takes_words: Whether words may stand without an option.
        defaults: Of the options.
    """
    given, others = given_options(words, known)
    names = [name for name, _ in given]
    for name in names:
        is_of_all = name.rpartition(".")[2] in OF_EVERY_PARSER
        if not (name in known or is_group(name, known) or _owner(name, known) or is_of_all):
            return f"There is no option {f'--{name}'.replace('---', '-')}.{_nearest(name, known, '--')}"
    if others and not takes_words:
        meant = [name for name in MEANT_FIRST if (name in known or _owner(name, known)) and name not in names]
        if meant and not others[0].endswith(("]", "}", ",")):
            return f"{others[0]!r} belongs to no option. Did you mean --{meant[0]} {others[0]}?"
        return f"{others[0]!r} belongs to no option. A value that holds spaces needs quotes: '[GradCAM, SmoothGrad]'."
    for name, value in given:
        owner = _owner(name, known)
        problem = None
        if is_group(name, known):
            problem = f"should be options, as YAML, or a file of them, got {value or 'an empty text'}."
        elif name in known:
            problem = _problem(known[name].annotation, value)
        elif owner:
            object_ = _loaded(dict(given).get(owner, defaults.get(owner)))
            path = object_.get("class_path") if isinstance(object_, dict | Namespace) else object_
            option = name.removeprefix(f"{owner}.").removeprefix("init_args.")
            if isinstance(path, str) and option != "class_path" and "." not in option:
                class_ = {"class_path": path, "init_args": {option: value}}
                problem = _problem_of_class([*_bases(known[owner].annotation)], class_, is_whole=False)
        if problem:
            return f"--{owner or name}: {problem}"
    return None


def _owner(name: str, known: Mapping[str, Option]) -> str | None:
    """The option that takes an object of a class, of whose options this is one."""
    owners = [owner for owner in known if name.startswith(f"{owner}.")]
    return next((owner for owner in owners if [*_bases(known[owner].annotation)]), None)


def kinds_of(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the one type that there is."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [kind for each in typing.get_args(annotation) for kind in kinds_of(each)] if is_union else [annotation]


def _item(kind: Any) -> Any:
    """The type of a list's items; None if it is of no list."""
    is_list = inspect.isclass(origin := typing.get_origin(kind)) and issubclass(origin, Iterable)
    return typing.get_args(kind)[0] if is_list and not issubclass(origin, Mapping) else None


def _bases(annotation: Any) -> Iterator[type]:
    """The classes of which a type takes objects, also in lists."""
    for kind in kinds_of(annotation):
        if (item := _item(kind)) is not None:
            yield from _bases(item)
        elif inspect.isclass(kind) and kind.__module__ != "builtins" and get_registered_type(kind) is None:
            yield kind


def _fits(annotation: Any, value: Any) -> bool:
    probe = ArgumentParser(exit_on_error=False, parser_mode=AS_WRITTEN)
    with suppress(ArgumentError, ImportError, AttributeError, KeyError, TypeError, ValueError):
        probe.add_argument("--value", type=annotation)
        probe.parse_object({"value": value})
        return True
    return False


def _problem(annotation: Any, value: Any) -> str | None:
    """What a type asks for, beside a value that does not fit it; None if it does."""
    if value is None or _fits(annotation, value):
        return None
    loaded, kinds = _loaded(value), [kind for kind in kinds_of(annotation) if kind is not types.NoneType]
    items = [item for kind in kinds if (item := _item(kind)) is not None]
    if isinstance(loaded, str) and loaded.startswith(("[", "{")):
        return f"{loaded} {NOT_YAML}."
    if items and isinstance(loaded, list) and [*_bases(items[0])]:
        return next((problem for each in loaded if (problem := _problem(items[0], each))), None)
    if len(items) == len(kinds) and not isinstance(loaded, list):
        return f"should be a list, in brackets, got {value}." if loaded != value else f"should be a list: '[{value}]'."
    if (bases := [*_bases(annotation)]) and (problem := _problem_of_class(bases, loaded)):
        return problem
    return f"should be {_in_words(kinds)}, got {'an empty text' if value == '' else value}."


def _in_words(kinds: Sequence[Any]) -> str:
    words: list[str] = []
    for kind in kinds:
        if typing.get_origin(kind) is typing.Literal:
            words += map(str, typing.get_args(kind))
        elif (item := _item(kind)) is not None:
            words.append(f"a list, each {_in_words(kinds_of(item))}")
        else:
            words.append(KINDS.get(typing.get_origin(kind) or kind, str(kind)))
    return f"{'one of ' if len(words) > 1 else ''}{', '.join(dict.fromkeys(words))}"


def _problem_of_class(bases: Sequence[type], value: Any, is_whole: bool = True) -> str | None:
    """What is wrong with what should name a class derived from one of ``bases``, and its options."""
    if not isinstance(value, str) and not (isinstance(value, dict) and "class_path" in value):
        is_joined = isinstance(value, dict) and any(":" in str(key) for key in value)
        return f"{value} {NOT_YAML}." if is_joined else f"should be the name of a class, got {value}."
    path, options = (value, {}) if isinstance(value, str) else (str(value["class_path"]), value.get("init_args") or {})
    classes = {cls.__name__: cls for base in bases for cls in _classes(base)}
    if "." not in path and path not in classes:
        known = sorted({name for base in bases for name in public_classes(base)})
        those = f"Known: {', '.join(known)}; your own by its" if known else "Give its"
        return (
            f"no {bases[0].__name__} is called {path}.{_nearest(path, known)} {those} import path, such as "
            "my_file.MyClass."
        )
    try:
        cls = classes[path] if path in classes else pkgutil.resolve_name(path)
    except Exception as error:  # of a stranger's file
        return f"{path} cannot be imported: {type(error).__name__}: {error}."
    if not (inspect.isclass(cls) and issubclass(cls, tuple(bases))):
        return f"{path} is not one of those asked for here: derive it from {bases[0].__module__}.{bases[0].__name__}."
    annotations, parameters = annotations_of(cls), inspect.signature(cls).parameters
    for name, each in options.items() if isinstance(options, dict) else ():
        if name not in annotations and name not in parameters:
            near, those = _nearest(name, parameters), ", ".join(parameters) or "none"
            return f"{cls.__name__} has no option {name}.{near} Its options: {those}."
        if problem := _problem(annotations.get(name, Any), each):
            return f"{name} {problem}"
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in parameters.items() if is_whole else ():
        if name not in options and parameter.default is parameter.empty and parameter.kind not in several:
            return f"{cls.__name__} needs {name}: {{class_path: {cls.__name__}, init_args: {{{name}: ...}}}}."
    return None


def _nearest(word: str, known: Iterable[str], dashes: str = "") -> str:
    """A sentence that suggests known words; empty if none is near, however they are capitalized."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(dashes + folded[name] for name in near)}?" if near else ""


def _classes(base: type) -> Iterator[type]:
    """A class and all that are derived from it."""
    yield base
    derived: type
    for derived in base.__subclasses__():
        yield from _classes(derived)


def public_classes(base: type) -> dict[str, type]:
    """Those derived from a class that can be made and that one of our packages exports, by name."""
    found = {}
    for cls in _classes(base):
        parts = cls.__module__.split(".")
        packages = [".".join(parts[:k]) for k in range(1, len(parts))]
        is_exported = any(getattr(sys.modules.get(package), cls.__name__, None) is cls for package in packages)
        if parts[0] in ("datamodules", "lightning_modules") and is_exported and not inspect.isabstract(cls):
            found[cls.__name__] = cls
    return dict(sorted(found.items()))
