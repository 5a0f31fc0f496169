"""What is wrong with a command line that the parser refuses, in a sentence that says what would have been right.

Nothing here reads the parser's message: each option is tried by itself, and of the first that does not fit its type it
is said what the type asks for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import types
import typing
from argparse import ArgumentError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import get_registered_type

from datamodules.text import Names, Text, Texts
from lightning_modules.running.parsing.written import AS_WRITTEN, Limit, load

KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Text: "a text"}
KINDS |= {Texts: "a text or a list of texts", Names: "a list of names, or a file of them", dict: "a table"}
KINDS |= {Limit: "a number of batches, or a share"}
LISTS = {float: "a list of numbers", int: "a list of whole numbers", str: "a list of texts"}
OURS = ("datamodules", "lightning_modules")
MEANT_FIRST = ("data.root", "data.classes", "network", "out")
"""What a word that belongs to no option may be a value of."""

NOT_YAML = "is not YAML: a space has to follow each colon and comma"


@dataclass(frozen=True)
class Option:
    """What a parser takes.

    Attributes:
        annotation: Its type.
        is_required: Whether it has to be given.
        n_values: How many words follow it.
        is_positional: Whether its words stand without its name.
    """

    annotation: Any
    is_required: bool
    n_values: int | str = 1
    is_positional: bool = False


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


def required_of(maker: Callable[..., Any]) -> list[str]:
    """The names of what has to be given to a class or a function."""
    parameters = inspect.signature(maker).parameters.values()
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in several]


def given_options(words: Sequence[str], known: Mapping[str, Option]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The options of a command line with their values, also those in groups and files, and the words of none.

    Example:
        >>> given_options(["--out", "run", "--data", "{root: 012}", "x"], {"data.root": Option(str, True)})
        ([('out', 'run'), ('data.root', '012')], ['x'])
    """
    found: list[tuple[str, Any]] = []
    others: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--"):
            others.append(word)
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.removesuffix("+")
        n_values = known[name].n_values if name in known else 1
        if not equals and n_values:
            value = left.pop(0) if left and not left[0].startswith("--") else ""
            del left[: n_values - 1 if isinstance(n_values, int) else 0]
        if name == "config" or _is_group(name, known):
            found += _inside("" if name == "config" else name, value, known)
        if not _is_group(name, known):
            found.append((name, value if n_values == 1 or equals else None))
    return found, others


def _is_group(name: str, known: Iterable[str]) -> bool:
    return name not in known and any(option.startswith(f"{name}.") for option in known)


def _inside(name: str, value: Any, known: Mapping[str, Option]) -> Iterator[tuple[str, Any]]:
    """The options of a group that is given as YAML or as a file of it; of a whole configuration, without a name."""
    group = value
    with suppress(yaml.YAMLError, OSError, ValueError):
        group = load(Path(value).read_text() if os.path.isfile(value) else value) if isinstance(value, str) else value
    if not isinstance(group, dict):
        yield from [(name, value)] if name else []
        return
    for key, each in group.items():
        inner = f"{name}.{key}" if name else key
        yield from _inside(inner, each, known) if _is_group(inner, known) else [(inner, each)]


def what_is_wrong(words: Sequence[str], known: Mapping[str, Option], defaults: Namespace) -> str | None:
    """The sentence about the first thing that is wrong with a command line; None if nothing is found."""
    given, others = given_options(words, known)
    names = {name for name, _ in given}
    slips = [word.lstrip("-").partition("=")[0] for word in others if word[:1] == "-" and word[1:2].isalpha()]
    for name in [*(name for name, _ in given), *slips]:
        if name in slips or not _is_known(name, known):
            return f"There is no option {'-' * (2 - (name in slips))}{name}.{_nearest(name, known, '--')}"
    if others and not any(option.is_positional for option in known.values()):
        meant = [name for name in MEANT_FIRST if _is_known(name, known) and name not in names]
        if meant and not others[0].endswith(("]", "}", ",")):
            return f"{others[0]!r} belongs to no option. Did you mean --{meant[0]} {others[0]}?"
        return f"{others[0]!r} belongs to no option. A value that holds spaces needs quotes: '[GradCAM, SmoothGrad]'."
    for name, value in given:
        owner = name if name in known else _owner(name, known) or name
        if problem := _problem(name, value, known, dict(given).get(owner, defaults.get(owner))):
            return f"--{owner}: {problem}"
    lacking = [
        name if option.is_positional else f"--{name}"
        for name, option in known.items()
        if option.is_required and name not in names and not (option.is_positional and others)
    ]
    return f"These are required: {', '.join(lacking)}." if lacking else None


def _is_known(name: str, known: Mapping[str, Option]) -> bool:
    is_flag = name in ("config", "help", "print_config") or name.endswith(".help")
    return is_flag or name in known or _is_group(name, known) or _owner(name, known) is not None


def _owner(name: str, known: Mapping[str, Option]) -> str | None:
    """The option that takes an object of a class, of whose options this is one."""
    owners = [owner for owner in known if name.startswith(f"{owner}.")]
    return next((owner for owner in owners if [*_bases(known[owner].annotation)]), None)


def _problem(name: str, value: Any, known: Mapping[str, Option], owner: Any) -> str | None:
    """What is wrong with the value of an option; ``owner`` is the object whose option it is, if it is one's."""
    if name == "config":
        return None if isinstance(value, str) and os.path.isfile(value) else f"there is no file {value!r}."
    if _is_group(name, known):
        return f"should be options, as YAML, or a file of them, got {value or 'an empty text'}."
    if name in known:
        annotation = known[name].annotation
        return None if value is None or _fits(annotation, value) else _complaint(annotation, value)
    of, _, option = name.removeprefix(f"{_owner(name, known)}.").removeprefix("init_args.").partition(".")
    path = owner.get("class_path") if isinstance(owner, dict | Namespace) else owner
    if not isinstance(path, str) or of == "class_path" or option:
        return None
    bases = _bases(known[_owner(name, known) or ""].annotation)
    return _problem_of_class([*bases], {"class_path": path, "init_args": {of: value}}, is_whole=False)


def _fits(annotation: Any, value: Any) -> bool:
    probe = ArgumentParser(exit_on_error=False, parser_mode=AS_WRITTEN)
    with suppress(ArgumentError, ImportError, AttributeError, KeyError, TypeError, ValueError):
        probe.add_argument("--value", type=annotation)
        probe.parse_object({"value": value})
        return True
    return False


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the one type that there is."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return [kind for each in typing.get_args(annotation) for kind in _kinds(each)] if is_union else [annotation]


def _item(kind: Any) -> Any:
    """The type of a list's items; None if it is of no list."""
    is_list = inspect.isclass(origin := typing.get_origin(kind)) and issubclass(origin, Iterable)
    return typing.get_args(kind)[0] if is_list and not issubclass(origin, Mapping) else None


def _bases(annotation: Any) -> Iterator[type]:
    """The classes of which a type takes objects, also in lists."""
    for kind in _kinds(annotation):
        if (item := _item(kind)) is not None:
            yield from _bases(item)
        elif inspect.isclass(kind) and kind.__module__ != "builtins" and get_registered_type(kind) is None:
            yield kind


def _complaint(annotation: Any, value: Any) -> str:
    """What a type asks for, beside a value that does not fit it."""
    loaded = value
    with suppress(yaml.YAMLError, ValueError):
        loaded = load(value) if isinstance(value, str) else value
    kinds = _kinds(annotation)
    items = [item for kind in kinds if (item := _item(kind)) is not None]
    is_of_lists = len(items) == len([kind for kind in kinds if kind is not types.NoneType])
    if isinstance(loaded, str) and loaded.startswith(("[", "{")):
        return f"{loaded} {NOT_YAML}."
    if items and isinstance(loaded, list):
        wrong = [each for each in loaded if not _fits(items[0], each)]
        if [*_bases(items[0])] and wrong:
            return _complaint(items[0], wrong[0])
    elif is_of_lists and not isinstance(loaded, dict):
        return f"should be a list, in brackets: '[{_as_item(items[0], value)}]'."
    elif is_of_lists:
        return f"should be a list, in brackets, got {value}."
    if (bases := [*_bases(annotation)]) and (problem := _problem_of_class(bases, loaded)):
        return problem
    return f"should be {_in_words(annotation)}, got {'an empty text' if value == '' else value}."


def _as_item(item: Any, value: Any) -> str:
    """A value as it should stand in a list: a class by its own name, a whole number of 255 levels as a fraction."""
    named = {name.lower(): name for base in _bases(item) for name in _known_classes(base)}
    with suppress(ValueError):
        if set(_kinds(item)) == {str, float} and float(value) >= 1:
            return f"{value}/255"
    near = difflib.get_close_matches(str(value).lower(), named, n=1, cutoff=0.8)
    return named[near[0]] if near else value


def in_words_but_null(annotation: Any) -> str | None:
    """What a type asks for; None if null is all right."""
    return None if {types.NoneType, Any} & set(_kinds(annotation)) else _in_words(annotation)


def _in_words(annotation: Any) -> str:
    kinds = [kind for kind in _kinds(annotation) if kind is not types.NoneType]
    values = [
        str(value) for kind in kinds if typing.get_origin(kind) is typing.Literal for value in typing.get_args(kind)
    ]
    words = [
        LISTS.get(item, "a list")
        if (item := _item(kind)) is not None
        else KINDS.get(typing.get_origin(kind) or kind, str(kind))
        for kind in kinds
        if typing.get_origin(kind) is not typing.Literal
    ]
    several = list(dict.fromkeys([*values, *words]))
    return f"{'one of ' if len(several) > 1 else ''}{', '.join(several)}"


def _problem_of_class(bases: Sequence[type], value: Any, is_whole: bool = True) -> str | None:
    """What is wrong with what should name a class derived from one of ``bases``, and its options."""
    if not isinstance(value, str) and not (isinstance(value, dict) and "class_path" in value):
        is_joined = isinstance(value, dict) and any(":" in str(key) for key in value)
        return f"{value} {NOT_YAML}." if is_joined else f"should be the name of a class, got {value}."
    path, options = (value, {}) if isinstance(value, str) else (str(value["class_path"]), value.get("init_args") or {})
    classes = {cls.__name__: cls for base in bases for cls in _classes(base)}
    if "." not in path and path not in classes:
        known = sorted({name for base in bases for name in _known_classes(base)})
        where = f"Known: {', '.join(known)}; your own by" if known else "Give"
        return (
            f"no {bases[0].__name__} is called {path}.{_nearest(path, known)} {where} its import path, such as "
            "my_file.MyClass."
        )
    cls = classes[path] if path in classes else _imported(path)
    if isinstance(cls, str):
        return cls
    if not (inspect.isclass(cls) and issubclass(cls, tuple(bases))):
        wanted = f"{_public_module(bases[0])}.{bases[0].__name__}"
        return f"{path} is not one of those asked for here: derive it from {wanted}."
    annotations, parameters = annotations_of(cls), list(inspect.signature(cls).parameters)
    for name, each in options.items() if isinstance(options, dict) else ():
        if name not in annotations and name not in parameters:
            near, those = _nearest(name, parameters), ", ".join(parameters) or "none"
            return f"{cls.__name__} has no option {name}.{near} Its options: {those}."
        if not _fits(annotations.get(name, Any), each):
            return f"{name} {_complaint(annotations[name], each)}"
    if lacking := [name for name in required_of(cls) if name not in options and is_whole]:
        return f"{cls.__name__} needs {lacking[0]}: {{class_path: {cls.__name__}, init_args: {{{lacking[0]}: ...}}}}."
    return None


def _imported(path: str) -> Any:
    """What an import path names, or what is wrong with it."""
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return f"there is no module {module}: neither a file {module}.py in {os.getcwd()} nor an installed package."
    except Exception as error:  # of a stranger's file
        return f"{module} cannot be imported: {type(error).__name__}: {error}."
    near = _nearest(name, [each for each, value in vars(found).items() if inspect.isclass(value)])
    return getattr(found, name, f"{module} has no class {name}.{near}")


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


def _known_classes(base: type) -> Iterator[str]:
    """The names of our public ones that can be made."""
    for cls in _classes(base):
        is_ours = cls.__module__.partition(".")[0] in OURS
        if is_ours and not inspect.isabstract(cls) and _public_module(cls) != cls.__module__:
            yield cls.__name__


def _public_module(cls: type) -> str:
    """The shortest package that exports the class."""
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:k]) for k in range(1, len(parts) + 1))
    return next((p for p in packages if getattr(sys.modules.get(p), cls.__name__, None) is cls), cls.__module__)
