"""The command line's parser, whose errors say what would have been right, and whose help begins with what matters."""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Collection, Iterable, Mapping
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

from pytorch_lightning import Trainer
from pytorch_lightning.cli import LightningArgumentParser

from lightning_modules.running.parsing.diagnosis import in_a_line, suggestion
from lightning_modules.running.parsing.written import AS_WRITTEN, Limit
from lightning_modules.text import plain_lines

LIMITS = tuple(f"limit_{loop}_batches" for loop in ("train", "val", "test", "predict"))
"""Options of which Lightning's own type is int or float in an order that depends on what else was imported."""

LARGEST = 2**63 - 1
TRAINER = "Where and how it runs (Lightning's Trainer; its other options work too, see its documentation)"


class HelpfulParser(LightningArgumentParser):
    """Explains what the user can mean where an option, a class or a value is not known.

    Attributes:
        trainer_options: Which of the Trainer's options help shows; all of them are understood.
    """

    trainer_options: Collection[str] = ()

    def __init__(self, *args: Any, parser_mode: str = AS_WRITTEN, **options: Any) -> None:
        self.words: list[str] = []
        self.never_null: set[str] = set()
        super().__init__(*args, parser_mode=parser_mode, **options)

    def add_class_arguments(
        self, class_type: type, nested_key: str | None = None, *args: Any, **options: Any
    ) -> list[str]:
        if limits := LIMITS if issubclass(class_type, Trainer) else ():
            options["skip"] = {*limits}
        names = super().add_class_arguments(class_type, nested_key, *args, **options)
        if not limits:
            of_class: Any = class_type
            self._learn_what_is_never_null(of_class.__init__, f"{nested_key}." if nested_key else "")
        for name in limits:
            group = (self.groups or {})[str(nested_key)]
            group.add_argument(f"--{nested_key}.{name}", type=Limit | None, help="1 is a batch, 1.0 all of them.")
        return names

    def add_function_arguments(
        self, function: Callable, nested_key: str | None = None, *args: Any, **options: Any
    ) -> Any:
        self._learn_what_is_never_null(function, f"{nested_key}." if nested_key else "")
        return super().add_function_arguments(function, nested_key, *args, **options)

    def _learn_what_is_never_null(self, function: Callable, prefix: str) -> None:
        """Of these the parser would pass null on, as if nothing had been set."""
        try:
            hints = get_type_hints(function)
        except (NameError, TypeError):  # a stranger's, of what is imported for a checker of types alone
            return
        self.never_null |= {prefix + name for name, hint in hints.items() if {NoneType, Any}.isdisjoint(_parts(hint))}

    def parse_args(self, args: Iterable[str] | None = None, *more: Any, **options: Any) -> Any:
        """The options of a command line; text is what was written, see :mod:`.written`."""
        self.words = sys.argv[1:] if args is None else [*args]
        parsed, defaults = super().parse_args(self.words, *more, **options), self.get_defaults()
        for name, value in parsed.items():
            if value == "" != defaults.get(name):  # as a path, it would be the present folder
                self.refuse(f"--{name} is empty: give it a value, or leave it out.")
            if isinstance(value, int) and abs(value) > LARGEST:
                self.refuse(f"--{name} must fit in 64 bits, got {value}.")
            if value is None and name in self.never_null and defaults.get(name) is not None:
                self.refuse(f"--{name} is null: give it a value, or leave it out.")
        return parsed

    def option_names(self) -> list[str]:
        """The names of all options, as help lists them."""
        names = re.findall(r"(?m)^  (?:-\w[^-]*, )?--([\w.]+)", super().format_help())
        return [name for name in dict.fromkeys(names) if not name.endswith(".help")]

    def explain(self, texts: Mapping[str, str]) -> None:
        """Gives options other texts of help, by their names."""
        for action in self._actions:
            action.help = texts.get(action.dest, action.help)

    def format_help(self, *args: Any) -> str:
        # Not before: the parser leaves hidden options out of configurations too.
        shown = {f"trainer.{name}" for name in self.trainer_options}
        hidden = {action.dest for action in self._actions if action.dest.startswith("trainer.")} - shown
        self.explain(dict.fromkeys(hidden, SUPPRESS))
        of_trainer = [
            group
            for group in self._action_groups
            if any(action.dest.startswith("trainer.") for action in group._group_actions)
        ]
        for group in of_trainer:
            group.title = TRAINER
        self._action_groups = sorted(self._action_groups, key=of_trainer.__contains__)
        return super().format_help(*args)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        # Parsers of a class's options raise; what they say is a part of the whole's message.
        if not self.exit_on_error:
            super().error(message, ex)
        sentence = in_a_line(message)
        self.refuse(f"{sentence.rstrip('.')}. {suggestion(sentence, self.words, self.option_names())}".strip())

    def refuse(self, sentence: str) -> NoReturn:
        """Prints what is wrong and ends the process with exit code 2."""
        sys.stderr.write(f"error: {plain_lines(sentence)}\nAll options: {self.prog} --help\n")
        self.exit(2)


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types that a hint is a union of, or itself."""
    return (hint, *get_args(hint))
