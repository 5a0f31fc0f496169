"""What ``--help`` shows: what a script is asked for first, and of Lightning's many options those that matter here."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

TRAINER = "Where and how it runs (Lightning's Trainer; its other options work too, see its documentation)"


@contextmanager
def arranged(parser: ArgumentParser, trainer_options: Collection[str]) -> Iterator[None]:
    """The parser as help should show it: the Trainer's options last, of them ``trainer_options`` alone.

    Only while it lasts: the parser leaves hidden options out of configurations too.
    """
    groups = parser._action_groups
    trainer = [group for group in groups if any(_is_of_trainer(action) for action in group._group_actions)]
    shown = {f"trainer.{name}" for name in trainer_options}
    hidden = [action for action in parser._actions if _is_of_trainer(action) and action.dest not in shown]
    before = [(action, action.help) for action in hidden], [(group, group.title) for group in trainer]
    try:
        parser._action_groups = [group for group in groups if group not in trainer] + trainer
        for action in hidden:
            action.help = SUPPRESS
        for group in trainer:
            group.title = TRAINER
        yield
    finally:
        parser._action_groups = groups
        for action, text in before[0]:
            action.help = text
        for group, title in before[1]:
            group.title = title


def explain_options(parser: ArgumentParser, texts: Mapping[str, str]) -> None:
    """Gives options other texts of help, by their names."""
    for action in parser._actions:
        action.help = texts.get(action.dest, action.help)


def _is_of_trainer(action: Action) -> bool:
    return action.dest.startswith("trainer.")
