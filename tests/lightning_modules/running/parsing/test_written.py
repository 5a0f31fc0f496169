"""Text stays what was written: on the command line, in a configuration, and in what a run leaves."""

from __future__ import annotations

import json
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import evaluate_attribution
import evaluate_robustness
import maximize_activation
import pytest
import train_classifier
import yaml

from datamodules import ClassIndexDataModule, ImageFolderDataModule
from datamodules.text import Text
from lightning_modules import AttributionMethod, AttributionModule, GradCAM
from lightning_modules.running import EvaluationCLI
from lightning_modules.running.parsing.parser import HelpfulParser
from lightning_modules.running.parsing.written import load

ODD = ["012", "1_0", "1e3", "0x10", "0o14", "1:30", "on", "yes", "null", "true", "~", "1.0", "1", ".5"]
ODD += ["2001-01-01", "2001-99-99", "0b1", "12", "n02123045", "-1", "a b"]
"""What YAML reads as something else than text."""


def settings(call: Callable, capsys: pytest.CaptureFixture[str], main: Callable, *args: object) -> Any:
    """What the options come to, as RUN's config.yaml holds it."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        call(main, "--model.weights", "shapes", "--out", "run", *args, "--print_config")
    return yaml.load(capsys.readouterr().out, yaml.BaseLoader)


class Model:
    def __init__(
        self,
        target: Text | int = "predicted",
        n: int = 1,
        optional: Text | None = None,
        network: str | dict = "",  # as load_network has it: not of Any
    ) -> None: ...


@pytest.fixture
def parser() -> HelpfulParser:
    parser = HelpfulParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Model, "model")
    parser.add_class_arguments(ClassIndexDataModule, "data")
    return parser


@pytest.mark.parametrize("text", ODD)
def test_on_the_command_line_and_in_a_configuration(parser: HelpfulParser, text: str) -> None:
    for args in (["--model.target", text], [f"--model.target={text}"]):
        assert parser.parse_args(args).model.target == text
    assert parser.parse_args(["--data.classes", text]).data.classes in (text, [text])
    assert parser.parse_args(["--data.classes", f"[{text}, tabby]"]).data.classes == [text, "tabby"]
    for written in (text, f'"{text}"') if text != "null" else ('"null"',):
        content = f"model:\n  target: {written}\ndata:\n  classes: [{written}]\n"
        found = parser.parse_string(content)
        again = parser.parse_string(parser.dump(found, skip_validation=True))
        for each in (found, again):
            assert (each.model.target, each.data.classes) == (text, [text])


def test_other_options_are_read_as_ever(parser: HelpfulParser) -> None:
    found: Any = parser.parse_args(["--model.n", "3", "--model.optional", "null", "--data.n_images", "2"])
    assert (found.model.n, found.model.optional, found.data.n_images) == (3, None, 2)


def test_classes_are_what_was_written(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = f"[{', '.join(ODD)}, 'crane, bird']"
    (tmp_path / "c.yaml").write_text(f"data:\n  classes: {written}\n")
    (tmp_path / "data.yaml").write_text(f"classes: {written}\n")
    for options in (
        ["--data.classes", written],
        ["--config", "c.yaml"],
        ["--data", f"{{classes: {written}}}"],
        ["--data", "data.yaml"],
    ):
        found = settings(call, capsys, maximize_activation.main, *options)
        assert found["data"]["classes"] == [*ODD, "crane, bird"]
    assert settings(call, capsys, maximize_activation.main, "--data.classes", "012")["data"]["classes"] == "012"


STRANGE = [*ODD, "a:", "'q'", "[x]", "{x}", "#5", "%", "@x", "`", "*x", "&x", "!x", "|", "<<", "=", ".inf"]
STRANGE += ["nan", "1.50", "1E3", "True", "NULL", "a\\nb", "💡"]
STRANGE += ["crane, bird", "a: b", '"', "犬 猫", " before", "after ", "x #5", "- x"]


def test_any_name_is_kept(parser: HelpfulParser) -> None:
    """Alone and in a list, typed and in quotes, and in what a run writes of it."""
    quoted = yaml.safe_dump(STRANGE, default_flow_style=True, allow_unicode=True, width=10_000).strip()
    for classes in (f"--data.classes={quoted}", f"--data={{classes: {quoted}}}"):
        for name in STRANGE[::7]:
            found: Any = parser.parse_args([f"--model.target={name}", classes])
            again: Any = parser.parse_string(parser.dump(found, skip_validation=True))
            for each in (found, again):
                assert (each.model.target, each.data.classes) == (name, STRANGE)


NAMES = ["012", "1_0", "on", "null"]
"""Of classes, as YAML does not read them."""


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("[012, 1_0, on, null]", NAMES),
        ("{0: 012, 1: 1_0, 2: on, 3: null}", dict(zip("0123", NAMES))),
        ("{012: 0, 1_0: 1, on: 2, null: 3}", dict(zip(NAMES, "0123"))),
        ("012", "012"),
        ("null", None),
    ],
)
def test_names_of_classes(
    call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, found: object
) -> None:
    capsys.readouterr()
    (tmp_path / "c.yaml").write_text(f"model: {{class_names: {written}}}\n")
    for options in (["--model.class_names", written], ["--config", "c.yaml"]):
        with pytest.raises(SystemExit, match="0"):
            call(evaluate_attribution.main, "--data.root", ".", "--out", "run", *options, "--print_config")
        assert yaml.safe_load(capsys.readouterr().out)["model"]["class_names"] == found


class Typed(GradCAM):
    def __init__(self, name: str = "x", names: Sequence[str] = (), text: Text = "x") -> None: ...


class Untyped(GradCAM):
    def __init__(self, number=None, numbers=None) -> None: ...


def test_among_the_arguments_of_a_strangers_class(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a text nothing is made; where a number would be, it is refused. What has no type is what it looks like."""
    parser = HelpfulParser(exit_on_error=False)
    parser.add_argument("--methods", type=Sequence[AttributionMethod])

    def arguments(written: str, cls: type) -> tuple[dict[str, Any], dict[str, Any]]:
        named = f"[{{class_path: {cls.__module__}.{cls.__name__}, init_args: {{{written}}}}}]"
        found: Any = parser.parse_args(["--methods", named])
        again: Any = parser.parse_string(parser.dump(found, skip_validation=True))
        return found.methods[0].init_args.as_dict(), again.methods[0].init_args.as_dict()

    names = [text for text in ODD if isinstance(load(text), str) and text != "~"]
    for text in names:
        kept = {"name": text, "names": [text, "12"], "text": text}
        assert arguments(f"name: {text}, names: [{text}, '12'], text: {text}", Typed) == (kept, kept)
    for number in ("12", "1e3", "true"):
        assert arguments(f"text: {number}", Typed)[1]["text"] == number
        for refused in (f"name: {number}", f"names: [{number}]"):
            with pytest.raises(ArgumentError, match=r"Expected a <class 'str'>\. Got value"):
                arguments(refused, Typed)
    number = {"number": 1000.0, "numbers": [1000.0, 12, 1.5]}
    assert arguments("number: 1e3, numbers: [1e3, 12, 1.50]", Untyped) == (number, number)


def test_names_of_classes_among_the_arguments_of_a_network(parser: HelpfulParser, tmp_path: Path) -> None:
    network = "{class_path: my.Net, init_args: {class_names: [012, on], n: 012, name: '012', rate: 1e-3}}"
    (tmp_path / "c.yaml").write_text(f"model: {{network: {network}}}\n")
    for args in (["--model.network", network], [f"--model={{network: {network}}}"], ["--config", f"{tmp_path}/c.yaml"]):
        found: Any = parser.parse_args(args)
        again: Any = parser.parse_string(parser.dump(found, skip_validation=True))
        for arguments in (found.model.network["init_args"], again.model.network["init_args"]):
            assert arguments == {"class_names": ["012", "on"], "n": "012", "name": "012", "rate": 0.001}


def test_the_arguments_of_a_network_come_back_as_they_were(
    call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of a function that names no types: jsonargparse makes numbers of text where a value may be anything."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_here.py").write_text("def make(class_names, rate):\n    ...\n")
    arguments = {"class_names": STRANGE, "rate": 0.001}
    network = json.dumps({"class_path": "made_here.make", "init_args": arguments}, ensure_ascii=False)
    for options in (["--data.root", ".", "--out", "run", "--model.network", network], ["--config", "c.yaml"]):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            call(evaluate_attribution.main, *options, "--print_config")
        printed = capsys.readouterr().out
        for found in (load(printed), yaml.safe_load(printed)):
            assert found["model"]["network"]["init_args"] == arguments
        (tmp_path / "c.yaml").write_text(printed)


def test_names_of_the_classes_of_judges(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judges = "[vgg16, {network: my.Net, class_names: [012, on], input_size: 64}]"
    (tmp_path / "c.yaml").write_text(f"model: {{judges: {judges}}}\n")
    for options in (["--model.judges", judges], ["--config", "c.yaml"]):
        found = settings(call, capsys, maximize_activation.main, *options)["model"]["judges"]
        assert found == ["vgg16", {"network": "my.Net", "class_names": ["012", "on"], "input_size": "64"}]


def test_names_of_classes_of_any_data(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "{root: images, class_names: [012, on]}"
    (tmp_path / "c.yaml").write_text(f"data: {{init_args: {arguments}}}\n")
    for options in (
        ["--data", f"{{class_path: ImageFolderDataModule, init_args: {arguments}}}"],
        ["--data.root", "images", "--data.class_names", "[012, on]"],
        ["--config", "c.yaml"],
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            call(train_classifier.main, *options, "--out", "run", "--print_config")
        assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["class_names"] == ["012", "on"]


def test_null_in_what_a_run_leaves(call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a default is something else, of an option and of a class's."""
    monkeypatch.setattr(EvaluationCLI, "instantiate_classes", lambda cli: None)

    def settings_of(*args: object) -> str:
        classes = AttributionModule, ImageFolderDataModule
        return call(lambda words: EvaluationCLI(*classes, description="", args=words).settings, *args)

    methods = "[{class_path: SmoothGrad, init_args: {clip: null}}]"
    options = ["--data.root", ".", "--out", "run", "--model.weights", "shapes", "--model.methods", methods]
    settings = settings_of(*options, "--model.resize_size", "null")
    found = yaml.safe_load(settings)["model"]
    assert (found["methods"][0]["init_args"]["clip"], found["resize_size"]) == (None, None)
    (tmp_path / "c.yaml").write_text(settings)
    assert settings_of("--config", "c.yaml") == settings


def test_null_is_no_text_where_nothing_is_a_choice(
    call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("model:\n  target: null\n")
    for options in (["--model.target", "null"], ["--config", "c.yaml"]):
        found = settings(call, capsys, evaluate_robustness.main, "--data.root", ".", *options)
        assert found["model"]["target"] == "null"  # as YAML writes None; text would have been quoted
