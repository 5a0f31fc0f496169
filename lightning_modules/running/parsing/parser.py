"""The command line's parser, whose errors say what would have been right."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from jsonargparse._link_arguments import ActionLink
from pytorch_lightning.cli import LightningArgumentParser

from lightning_modules.escaping import plain_lines
from lightning_modules.running.parsing.help import arranged
from lightning_modules.running.parsing.written import (
    TextOption,
    option_names,
    option_names_of_words,
    quoted_words,
    quoted_yaml,
    text_options,
)

KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "Sequence": "a list"}
LISTS = {"float": "a list of numbers", "int": "a list of whole numbers", "str": "a list of texts"}
LARGEST = 2**63 - 1


class HelpfulParser(LightningArgumentParser):
    """Explains what the user can mean where an option, a class or a value is not known.

    Attributes:
        trainer_options: Which of the Trainer's options help shows; all of them are understood.
        texts: The options that take text, once something was parsed.
    """

    trainer_options: Collection[str] = ()
    texts: Mapping[str, TextOption] = MappingProxyType({})

    def parse_args(self, args: Iterable[str] | None = None, *more: Any, **options: Any) -> Any:
        """The options of a command line; text is what was written, see :mod:`.written`."""
        words = sys.argv[1:] if args is None else list(args)
        self._refuse_linked(option_names_of_words(words, self._links))
        self._find_texts()
        parsed = super().parse_args(quoted_words(words, self.texts), *more, **options)
        for name, value in parsed.items():
            if value == "" != self.get_defaults().get(name):  # as a path, it would be the present folder
                self.error(f"{_option(name)} is empty: give it a value, or leave it out.")
            if isinstance(value, int) and abs(value) > LARGEST:
                self.error(f"{_option(name)}: no computer counts as far as {value}.")
        return parsed

    def parse_string(self, content: str, *more: Any, **options: Any) -> Namespace:
        """The options of a configuration, likewise."""
        self._find_texts()
        try:
            quoted = quoted_yaml(content, self.texts)
        except yaml.YAMLError:
            quoted = content  # the parser says what is wrong
        else:
            self._refuse_linked(option_names(quoted))
        return super().parse_string(quoted, *more, **options)

    def _find_texts(self) -> None:
        """Finds the options that take text, which from then on take whole numbers as text too."""
        self.texts = self.texts or text_options(self)
        for action in self._actions:
            if action.dest in self.texts and hasattr(action, "_typehint"):
                action._typehint = self.texts[action.dest].annotation

    def _refuse_linked(self, names: Iterable[str]) -> None:
        """Refuses options that follow from others."""
        links = self._links
        for name in names:
            if name in links:
                self.error(_linked_option(self, name, links[name]))

    @property
    def _links(self) -> dict[str, str]:
        """Options that follow from others -> what from."""
        return {action.dest: action._source[0] for action in self._actions if isinstance(action, ActionLink)}

    def format_help(self, *args: Any) -> str:
        with arranged(self, self.trainer_options):
            return super().format_help(*args)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Parsers of a class's options raise; what they say is a part of the whole's message.
        if not self.exit_on_error:
            super().error(message, ex)
        sys.stderr.write(f"error: {plain_lines(explain(self, message))}\nAll options: {self.prog} --help\n")
        self.exit(2)


def explain(parser: LightningArgumentParser, message: str) -> str:
    """The parser's message in words that say what would have been right; as it is, where none of ours fits."""
    if match := re.search(r"unrecognized arguments: (.+)", message):
        return _unknown_options(parser, match[1].split())
    if match := re.search(r"arguments are required: ([\w., -]+)$", message):
        return f"These are required: {', '.join(map(_option, match[1].split(', ')))}."
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_options(parser, [f"--{match[1]}.{match[2]}"])
    if match := re.search(r"ambiguous option: (\S+)", message):
        return _unknown_options(parser, [match[1]])
    key = re.search(r'Parser key "([\w.]+)"', message)
    if key is None:
        return message
    for pattern, describe in DESCRIPTIONS:
        if match := re.search(pattern, message, re.DOTALL):
            return f"{_option(key[1])}: {describe(parser, key[1], match)}"
    return message


def _linked_option(parser: LightningArgumentParser, name: str, source: str) -> str:
    if "." in source:
        return f"--{name} follows from --{source}: give that."
    given = f"{source}.{name.rpartition('.')[2]}"
    # One object of any class has options that the parser does not list.
    is_option = any(action.dest in (given, source) and hasattr(action, "_typehint") for action in parser._actions)
    return f"--{name} follows from the {source}: {f'give --{given}' if is_option else 'it is not to be given'}."


def _unknown_options(parser: LightningArgumentParser, words: Sequence[str]) -> str:
    known = {option.rstrip("+") for action in parser._actions for option in action.option_strings if option[:2] == "--"}
    unknown = [word.partition("=")[0] for word in words if word.startswith("--")]
    if not unknown:
        return f"{words[0]!r} belongs to no option. A value that holds spaces needs quotes: '[GradCAM, SmoothGrad]'."
    return f"There is no option {unknown[0]}.{_nearest(unknown[0], known)}"


def _unknown_class(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    bases = list(_classes_of(parser, key))
    known = sorted({name for base in bases for name in _known_classes(base)})
    kind = bases[0].__name__ if bases else "class"
    where = f"Known: {', '.join(known)}; your own by" if known else "Give"
    return (
        f"no {kind} is called {match[1]}.{_nearest(match[1], known)} {where} its import path, such as my_file.MyClass."
    )


def _unknown_class_option(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    options = list(inspect.signature(_import(match[1])).parameters)
    name = match[1].rpartition(".")[2]
    return f"{name} has no option {match[2]}.{_nearest(match[2], options)} Its options: {', '.join(options) or 'none'}."


def _no_module(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    return f"there is no module {match[1]}: neither a file {match[1]}.py in {os.getcwd()} nor an installed package."


def _no_attribute(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    module = sys.modules.get(match[1])
    near = _nearest(match[2], [name for name in dir(module) if inspect.isclass(getattr(module, name))])
    return f"{match[1]} has no class {match[2]}.{near}"


def _wrong_base(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    base = next((cls for cls in _classes_of(parser, key) if cls.__name__ == match[2]), None)
    path = match[2] if base is None else f"{_public_module(base)}.{match[2]}"
    return f"{match[1]} is not one of those asked for here: derive it from {path}."


def _lacks_argument(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    name = match[1].rpartition(".")[2]
    return f"{name} needs {match[2]}: {{class_path: {name}, init_args: {{{match[2]}: ...}}}}."


def _no_list(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    value = re.search(r"Given value: (.+)|Got value: (.+)", match.string)
    given = (value[1] or value[2]).strip() if value else "..."
    if given.startswith("["):
        return f"{given} is not YAML: a space has to follow each colon and comma."
    if given.startswith("{"):
        return f"should be a list, in brackets, got {given}."
    return f"should be a list, in brackets: '[{given}]'."


def _no_group(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    return f"should be options, as YAML, or a file of them, got {match[1].strip() or 'an empty text'}."


def _wrong_value(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    inner, expected, given = match[1], match[2], match[3].strip() or "an empty text"
    where = f"{inner} " if inner and inner != key else ""
    if literal := re.fullmatch(r"(?:typing\.)?Literal\[(.+)\]", expected):
        return f"{where}should be one of {literal[1]}, got {given}."
    name = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", expected)
    return f"{where}should be {KINDS.get(name, name)}, got {given}."


def _no_alternative(parser: LightningArgumentParser, key: str, match: re.Match) -> str:
    values = list(dict.fromkeys(", ".join(re.findall(r"Literal\[([^\]]+)\]", match[1])).replace("'", "").split(", ")))
    kinds = [KINDS.get(name, name) for name in re.findall(r"<class '(?:[\w.]*\.)?(\w+)'>", match[1])]
    given = match[2].strip() or "an empty text"
    wanted = [*filter(None, values), *(kind for kind in kinds if kind != "NoneType")]
    if not wanted and (of_list := re.search(r"Sequence\[(\w+)\]", match[1])) and of_list[1] in LISTS:
        return f"should be {LISTS[of_list[1]]}, got {given}."
    if not wanted:
        return f"this is not understood: {given}. In YAML, a space has to follow each colon and comma."
    if wanted == ["a text"]:
        return f"should be a text or a list of texts, got {given}."
    if len(wanted) == 1:
        return f"should be {wanted[0]}, got {given}."
    return f"should be one of {', '.join(wanted)}; got {given}."


DESCRIPTIONS: list[tuple[str, Callable[[LightningArgumentParser, str, re.Match], str]]] = [
    (r"Problem with given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", _unknown_class_option),
    (r"Problem with given class_path '([\w.]+)':\s+the following arguments are required: ([\w]+)", _lacks_argument),
    (r"Expected a dot import path string: ([^\n]+)", _unknown_class),
    (r"No module named '([\w.]+)'", _no_module),
    (r"module '([\w.]+)' has no attribute '(\w+)'", _no_attribute),
    (r"Import path ([\w.]+) does not correspond to a subclass of (\w+)", _wrong_base),
    (r"Expected a <class 'collections\.abc\.Sequence'>", _no_list),
    (r'Parser key "([\w.]+)":\s+Expected an? ([^\n]+?)\. Got value: ?([^\n]*)', _wrong_value),
    (r"any of the Union subtypes\s+Subtypes: ([^\n]+)\n.*Given value: ?([^\n]*)", _no_alternative),
    (r"Unable to load config ['\"]([^\n]*)['\"]", _no_group),
    (r"(File does not exist: [^\n]+)", lambda parser, key, match: match[1]),
]
"""What jsonargparse says (a pattern) -> what we make of it, the first that fits."""


def _option(key: str) -> str:
    return key if key in ("images",) else f"--{key}"


def _nearest(word: str, known: Iterable[str]) -> str:
    """A sentence that suggests known words; empty if none is near, however they are capitalized."""
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), folded, n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(folded[name] for name in near)}?" if near else ""


def _classes_of(parser: LightningArgumentParser, key: str) -> Iterator[type]:
    """The classes of which an option takes objects, from its type."""
    for action in parser._actions:
        if action.dest == key:
            yield from _classes_in(getattr(action, "_typehint", None))


def _classes_in(annotation: Any) -> Iterator[type]:
    for part in typing.get_args(annotation) or [annotation]:
        if typing.get_args(part):
            yield from _classes_in(part)
        elif inspect.isclass(part) and part.__module__ != "builtins" and part.__module__ != "collections.abc":
            yield part


def _known_classes(base: type) -> Iterator[str]:
    """Names of our public classes derived from ``base``, and its own, that can be made."""
    is_ours = base.__module__.partition(".")[0] in ("datamodules", "lightning_modules")
    if is_ours and not inspect.isabstract(base) and _public_module(base) != base.__module__:
        yield base.__name__
    derived: type
    for derived in base.__subclasses__():
        yield from _known_classes(derived)


def _public_module(cls: type) -> str:
    """The shortest package that exports the class."""
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:k]) for k in range(1, len(parts) + 1))
    return next(p for p in packages if getattr(importlib.import_module(p), cls.__name__, None) is cls)


def _import(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)
