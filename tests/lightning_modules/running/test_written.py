"""Text stays what was written: on the command line, in a configuration, and in what a run leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datamodules import ClassIndexDataModule
from lightning_modules.running.parser import HelpfulParser


class Model:
    def __init__(self, target: str | int = "predicted", n: int = 1, optional: str | None = None) -> None: ...


@pytest.fixture
def parser() -> HelpfulParser:
    parser = HelpfulParser(exit_on_error=False)
    parser.add_class_arguments(Model, "model")
    parser.add_class_arguments(ClassIndexDataModule, "data")
    return parser


TEXTS = (
    "012",
    "12",
    "1_0",
    "1e3",
    "0x10",
    "0o14",
    "1:30",
    "on",
    "yes",
    "null",
    "true",
    "~",
    "n02123045",
    "1.0",
    "-1",
    "a b",
)


@pytest.mark.parametrize("text", TEXTS)
def test_on_the_command_line(parser: HelpfulParser, text: str) -> None:
    for args in (["--model.target", text], [f"--model.target={text}"]):
        assert parser.parse_args(args).model.target == text
    assert parser.parse_args(["--data.classes", text]).data.classes in (text, [text])
    assert parser.parse_args(["--data.classes", f"[{text}, tabby]"]).data.classes == [text, "tabby"]


@pytest.mark.parametrize("text", TEXTS)
def test_in_a_configuration_and_back(parser: HelpfulParser, text: str, tmp_path: Path) -> None:
    """Quoted or not."""
    for written in (text, f'"{text}"'):
        content = f"model:\n  target: {written}\ndata:\n  classes: [{written}]\n"
        found = parser.parse_string(content)
        assert (found.model.target, found.data.classes) == (text, [text])
        again = parser.parse_string(parser.dump(found, skip_validation=True))
        assert (again.model.target, again.data.classes) == (text, [text])


def test_other_options_are_read_as_ever(parser: HelpfulParser) -> None:
    found: Any = parser.parse_args(["--model.n", "3", "--model.optional", "null", "--data.n_images", "2"])
    assert (found.model.n, found.model.optional, found.data.n_images) == (3, None, 2)
