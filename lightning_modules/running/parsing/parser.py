"""The command line's parser, whose errors say what would have been right."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, NoReturn

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from lightning_modules.running.parsing.diagnosis import (
    Option,
    annotations_of,
    given_options,
    required_of,
    what_is_wrong,
)
from lightning_modules.running.parsing.help import arranged
from lightning_modules.running.parsing.written import AS_WRITTEN, Limit
from lightning_modules.text import plain_lines

LIMITS = tuple(f"limit_{loop}_batches" for loop in ("train", "val", "test", "predict"))
"""Options of which Lightning's own type is int or float in an order that depends on what else was imported."""

LARGEST = 2**63 - 1


class HelpfulParser(LightningArgumentParser):
    """Explains what the user can mean where an option, a class or a value is not known.

    Attributes:
        trainer_options: Which of the Trainer's options help shows; all of them are understood.
        known: What it takes, by name; of a class, its options by their names behind a dot.
    """

    trainer_options: Collection[str] = ()

    def __init__(self, *args: Any, parser_mode: str = AS_WRITTEN, **options: Any) -> None:
        self.known: dict[str, Option] = {}
        self.links: dict[str, str] = {}
        self.words: list[str] = []
        super().__init__(*args, parser_mode=parser_mode, **options)

    def add_argument(self, *names: str, **options: Any) -> Any:
        action = options.get("action")
        if "type" in options or isinstance(action, str):  # else it is of a class or a function, see below
            name, is_positional = names[-1].lstrip("-"), names[-1][:1] != "-"
            n_values = 0 if action in ("store_true", "help") else options.get("nargs", 1)
            is_required = options.get("required", is_positional)
            parser = getattr(self, "parser", self)  # of a group of options
            parser.known[name] = Option(options.get("type", str), is_required, n_values, is_positional)
        return super().add_argument(*names, **options)

    def add_class_arguments(
        self, class_type: type, nested_key: str | None = None, *args: Any, **options: Any
    ) -> list[str]:
        if limits := LIMITS if issubclass(class_type, Trainer) else ():
            options["skip"] = {*limits}
        names = super().add_class_arguments(class_type, nested_key, *args, **options)
        for name in limits:
            group = (self.groups or {})[str(nested_key)]
            group.add_argument(f"--{nested_key}.{name}", type=Limit | None, help="1 is a batch, 1.0 all of them.")
        return self._note(class_type, names, f"{nested_key}.")

    def add_function_arguments(self, function: Callable[..., Any], *args: Any, **options: Any) -> list[str]:
        return self._note(function, super().add_function_arguments(function, *args, **options), "")

    def _note(self, maker: Callable[..., Any], names: list[str], prefix: str) -> list[str]:
        annotations, required = annotations_of(maker), required_of(maker)
        for name in names:
            own = name.removeprefix(prefix)
            self.known[name] = Option(annotations.get(own, Any), own in required)
        return names

    def add_subclass_arguments(self, baseclass: Any, nested_key: str, *args: Any, **options: Any) -> Any:
        self.known[nested_key] = Option(baseclass, False)
        return super().add_subclass_arguments(baseclass, nested_key, *args, **options)

    def link_arguments(self, source: Any, target: str, *args: Any, **options: Any) -> None:
        self.links[target] = source
        return super().link_arguments(source, target, *args, **options)

    def parse_args(self, args: Iterable[str] | None = None, *more: Any, **options: Any) -> Any:
        """The options of a command line; text is what was written, see :mod:`.written`."""
        self.words = sys.argv[1:] if args is None else [*args]
        for name, _ in given_options(self.words, self.known)[0]:
            if name in self.links:
                self.refuse(self._linked(name))
        parsed = super().parse_args(self.words, *more, **options)
        for name, value in parsed.items():
            if value == "" != self.get_defaults().get(name):  # as a path, it would be the present folder
                self.refuse(f"--{name} is empty: give it a value, or leave it out.")
            if isinstance(value, int) and abs(value) > LARGEST:
                self.refuse(f"--{name} must fit in 64 bits, got {value}.")
        return parsed

    def _linked(self, name: str) -> str:
        source = self.links[name]
        if "." in source:
            return f"--{name} follows from --{source}: give that."
        given = f"{source}.{name.rpartition('.')[2]}"
        is_option = given in self.known or source in self.known
        return f"--{name} follows from the {source}: {f'give --{given}' if is_option else 'it is not to be given'}."

    def format_help(self, *args: Any) -> str:
        with arranged(self, self.trainer_options):
            return super().format_help(*args)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Parsers of a class's options raise; what they say is a part of the whole's message.
        if not self.exit_on_error:
            super().error(message, ex)
        known = {name: option for name, option in self.known.items() if name not in self.links}
        self.refuse(what_is_wrong(self.words, known, self.get_defaults()) or " ".join(message.split()))

    def refuse(self, sentence: str) -> NoReturn:
        """Prints what is wrong and ends the process with exit code 2."""
        sys.stderr.write(f"error: {plain_lines(sentence)}\nAll options: {self.prog} --help\n")
        self.exit(2)
