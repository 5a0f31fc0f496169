"""Text of options as it was written, on the command line and in YAML.

YAML reads 012 as ten, 1_0 as ten, 1:30 as ninety, on as true and 1e3 as a thousand, before anyone can look whether a
class is called so. Here an option that takes text, or text and whole numbers, is given what stands there; and so are
names of classes (``class_names``), also those among the arguments of a network.
"""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import math
import operator
import os
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from jsonargparse import ArgumentParser, get_loader
from jsonargparse._link_arguments import ActionLink

CLASS_NAMES = list[str] | dict[str, str] | str | None
"""Names of classes, where Python takes them in any form: a parser reads numbers in what may be anything."""


@dataclass(frozen=True)
class TextOption:
    """What an option takes that is text.

    Attributes:
        annotation: Its type, in which text stands for whole numbers.
        is_listed: Whether it takes a list of texts.
        is_numbered: Whether it takes whole numbers beside text, but no null: all that is written is then text.
    """

    annotation: Any
    is_listed: bool
    is_numbered: bool


def text_options(parser: ArgumentParser) -> dict[str, TextOption]:
    """The options of a parser that take text, by name; not those of Lightning's Trainer, which reads text by itself."""
    types_of = {
        action.dest: getattr(action, "_typehint", action.type)
        for action in parser._actions
        if action.option_strings and not isinstance(action, ActionLink) and not action.dest.startswith("trainer.")
    }
    types_of |= {name: CLASS_NAMES for name in types_of if _is_of_names(name) and types_of[name] is Any}
    found = {name: text_option(annotation) for name, annotation in types_of.items()}
    return {name: option for name, option in found.items() if option is not None}


def text_option(annotation: Any) -> TextOption | None:
    """What the option of a type takes that is text; None if it takes none, or something that is neither.

    Example:
        >>> text_option(str | int), text_option(float | str)
        (TextOption(annotation=<class 'str'>, is_listed=False, is_numbered=True), None)
    """
    kinds = _kinds(annotation)
    items = [_kinds(args[0]) for kind in kinds if _is_list(kind) and len(args := typing.get_args(kind)) in (1, 2)]
    alone = [kind for kind in kinds if not _is_list(kind) and not _is_mapping(kind)]
    is_listed = any(_are_texts(of_list) for of_list in items)
    if not (_are_texts(alone) or (is_listed and set(alone) <= {types.NoneType})):
        return None
    return TextOption(_without_numbers(annotation), is_listed, int in alone and types.NoneType not in alone)


def _kinds(annotation: Any) -> list[Any]:
    """The alternatives of a union, or the one type that there is."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return list(typing.get_args(annotation)) if is_union else [annotation]


def _are_texts(kinds: Sequence[Any]) -> bool:
    return str in kinds and set(kinds) <= {str, int, types.NoneType}


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) in (list, tuple, collections.abc.Sequence, collections.abc.Iterable)


def _is_mapping(kind: Any) -> bool:
    return kind is dict or typing.get_origin(kind) in (dict, collections.abc.Mapping)


def _without_numbers(annotation: Any) -> Any:
    """The type without the whole numbers that stand beside text, also in lists; of mappings only that they are some.

    Where values may be anything, jsonargparse would write text back as the number that it looks like.
    """
    kinds = _kinds(annotation)
    left = [kind for kind in kinds if not (kind is int and str in kinds)]
    return functools.reduce(operator.or_, map(_plain, left))


def _plain(kind: Any) -> Any:
    if _is_list(kind):
        return list[_without_numbers(typing.get_args(kind)[0])]  # type: ignore[misc]
    return dict if _is_mapping(kind) and Any in typing.get_args(kind) else kind


class _AsWritten(yaml.SafeLoader):
    """Reads every plain scalar as the text that it is."""

    # << merges mappings.
    yaml_implicit_resolvers: ClassVar = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}


class _InQuotes(yaml.SafeDumper):
    """Writes text so that every reader takes it for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_InQuotes.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def quoted_words(words: Sequence[str], options: Mapping[str, TextOption]) -> list[str]:
    """The words of a command line, with quotes round the texts in lists and in groups of options.

    Args:
        words: As the shell gives them.
        options: By name, such as ``data.classes``.

    Example:
        >>> quoted_words(["--data.classes", "[012, on]"], {"data.classes": text_option(list[str])})
        ['--data.classes', '["012", "on"]']
    """
    found = list(words)
    for place, before, name, value in _values(words):
        found[place] = before + _quoted_value(name, value, options)
    return found


def option_names_of_words(words: Sequence[str], options: Collection[str]) -> list[str]:
    """The names of the options that a command line gives, those in groups too.

    Args:
        words: As the shell gives them.
        options: Names of those that may stand in groups.

    Example:
        >>> option_names_of_words(["--out", "run", "--data", "{root: images}"], ["data.root"])
        ['out', 'data', 'data.root']
    """
    names = [word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")]
    for _, _, name, value in _values(words):
        if _is_group(name, options):
            with contextlib.suppress(yaml.YAMLError, OSError, ValueError):  # the parser says what is wrong
                names += [f"{name}.{inner}" for inner in option_names(_content(value))]
    return names


def _values(words: Sequence[str]) -> Iterator[tuple[int, str, str, str]]:
    """Of each option the place of its value, what stands before it in that word, the option's name, and the value."""
    for place, word in enumerate(words):
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").removesuffix("+")
        if name == option:
            continue
        if equals:
            yield place, option + equals, name, value
        elif place + 1 < len(words):
            yield place + 1, "", name, words[place + 1]


def _is_group(name: str, options: Iterable[str]) -> bool:
    return any(option.startswith(f"{name}.") for option in options)


def _is_of_names(name: str) -> bool:
    """Whether an option, of whatever type, holds the names of classes."""
    return name.rpartition(".")[2] == "class_names"


def _content(value: str) -> str:
    """The YAML that a group of options was given as, or that of the file."""
    return Path(value).read_text() if os.path.isfile(value) else value


def _quoted_value(name: str, value: str, options: Mapping[str, TextOption]) -> str:
    try:
        content = _content(value) if _is_group(name, options) else value
        loaded, written = get_loader("yaml")(content), yaml.load(content, _AsWritten)
    except (yaml.YAMLError, OSError, ValueError):
        return value  # the parser says what is wrong
    if not isinstance(written, list | dict):
        return value
    texts = _with_texts(loaded, written, options, name)
    return value if texts == loaded else _dumped(texts)


def quoted_yaml(content: str, options: Mapping[str, TextOption]) -> str:
    """A configuration with quotes round the texts of its options; as it is, where it is none.

    Args:
        content: YAML.
        options: By name, such as ``data.classes``.

    Raises:
        YAMLError: If it is no YAML.

    Example:
        >>> quoted_yaml("model: {target: 012}", {"model.target": text_option(str | int)})
        '{"model": {"target": "012"}}'
    """
    loaded, written = get_loader("yaml")(content), yaml.load(content, _AsWritten)
    if not isinstance(loaded, dict) or not isinstance(written, dict):
        return content
    texts = _with_texts(loaded, written, options, "")
    return content if texts == loaded else _dumped(texts)


def option_names(content: str) -> list[str]:
    """The names of the options that a configuration gives, those of groups too.

    Example:
        >>> option_names("{model: {target: cat}, out: run}")
        ['model', 'model.target', 'out']
    """
    loaded = get_loader("yaml")(content)
    return _keys(loaded) if isinstance(loaded, dict) else []


def _keys(loaded: Mapping[Any, Any], prefix: str = "") -> list[str]:
    return [
        name
        for key, value in loaded.items()
        for name in [f"{prefix}{key}", *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [])]
    ]


def _with_texts(loaded: Any, written: Any, options: Mapping[str, TextOption], name: str) -> Any:
    """What was loaded, with the values of text options, and names of classes, as they were written."""
    if _is_of_names(name):
        return None if loaded is None else written
    if isinstance(loaded, dict):
        prefix = f"{name}." if name else ""
        return {
            key: _with_texts(value, written[key], options, f"{prefix}{key}") if key in written else value
            for key, value in loaded.items()
        }
    if name not in options and isinstance(loaded, list) and isinstance(written, list):
        return [_with_texts(one, other, options, name) for one, other in zip(loaded, written)]
    return _text(loaded, written, options[name]) if name in options else loaded


def _text(loaded: Any, written: Any, option: TextOption) -> Any:
    if _is_list_of_texts(written):
        return written if option.is_listed else loaded
    if loaded is None and not (option.is_numbered and written):
        return None
    return written if isinstance(written, str) else loaded


def _is_list_of_texts(written: Any) -> bool:
    return isinstance(written, list) and all(isinstance(item, str) for item in written)


def _dumped(value: Any) -> str:
    style: Any = {"default_flow_style": True, "width": math.inf, "allow_unicode": True, "sort_keys": False}
    return yaml.dump(value, Dumper=_InQuotes, **style).strip()
