"""Whatever is written for an option: it is taken, or a sentence says what would have been right."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lightning_modules.running import stopping
from lightning_modules.running.cli import run_main
from lightning_modules.running.parsing.parser import HelpfulParser

WRONG = ["", "nonsense", "-1", "[a, b]", 10**20]
"""Each option is given one of them in turn."""
NETWORK = ["--model.weights", "shapes", "--trainer.accelerator", "cpu", "--out", "run"]
COMMANDS = {
    "predict": ["nowhere.png", "--weights", "nowhere.pth"],
    "describe_network": ["--weights", "nowhere.pth"],
    "pack_shards": ["--data.root", "empty", "--out", "packed"],
    "compare_runs": ["run", "other"],
    "maximize_activation": [*NETWORK, "--data.classes", "[no_class]", "--model.steps", 1],
    "evaluate_robustness": [*NETWORK, "--data.root", "empty"],
    "train_classifier": [
        *("--model.weights", "random", "--model.width", 0.05, "--model.hidden_features", 8, "--data.root", "empty"),
        *NETWORK[2:],
    ],
}
"""None of these can run to its end, whatever one of its options is; they look at their options all the same."""


class Parsing(Exception):
    pass


def options(script: str, args: list[str]) -> Iterator[str]:
    """Those of the script itself: without Lightning's, and what follows from others."""

    def parse_args(parser: HelpfulParser, *args: object) -> None:
        found.append(parser)
        raise Parsing

    found: list[HelpfulParser] = []
    with pytest.MonkeyPatch.context() as patch, suppress(Parsing):
        patch.setattr(HelpfulParser, "parse_args", parse_args)
        importlib.import_module(script).main(args)
    left_out = ("trainer", "config", "help", "print_config", "seed_everything")
    flags = ("overwrite", "report", "strict", "decoded", "common", "methods")
    for name in found[0].option_names():
        if not name.startswith(left_out) and name not in flags:
            yield f"--{name}"


@pytest.mark.slow
@pytest.mark.parametrize("script", COMMANDS)
def test_it_is_told(
    call: Callable,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
) -> None:
    monkeypatch.setattr(stopping, "listen", lambda: None)  # to signals, for the rest of this process
    (tmp_path / "empty").mkdir()
    module, command = importlib.import_module(script), [str(word) for word in COMMANDS[script]]
    for k, option in enumerate(call(lambda args: list(options(script, args)), *command)):
        value = WRONG[k % 5]
        with pytest.raises(SystemExit) as exited:
            call(lambda args: run_main(lambda: module.main(args)), *command, option, value)
        said = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("GPU available: ")]
        assert exited.value.code in (1, 2), (option, value, said)
        if exited.value.code == 2:
            assert said[0].startswith("error: "), (option, value, said)
            assert said[1:] in ([], ["All options: script --help"]), (option, value, said)
