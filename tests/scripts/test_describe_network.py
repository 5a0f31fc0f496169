"""What describe_network.py prints of networks, good and bad."""

from __future__ import annotations

from typing import Any

import describe_network
import pytest

from lightning_modules import InputError
from lightning_modules.running.description import explaining_methods

HERE = "tests.lightning_modules.networks.strangers"


def described(capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    assert describe_network.main([str(arg) for arg in args]) == 0
    # A cell may be broken over lines.
    return capsys.readouterr().out


def test_the_embedded_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = described(capsys, "--weights", "shapes")
    for words in (
        "8: arrow, circle, crescent, ..., star",
        "(0.485, 0.456, 0.406)",
        "112 × 112",
        "128",
        "features.29",
        "128×7×7",
        "GuidedBackprop",
        "ReLU 15",
        "AdaptiveAvgPool2d",
        "classifier.6",
    ):
        assert words in text
    assert text.count("applies") == len(explaining_methods())


@pytest.mark.slow
def test_where_guided_backpropagation_is_defined(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--weights", "random", "--input_size", 64, "--network")
    text = described(capsys, *options, "torchvision.models.mobilenet_v3_small")
    assert text.count("applies, but for Hardswish and Hardsigmoid") == 2
    assert "Hardswish 19, Hardsigmoid 9" in text
    text = described(capsys, *options, "torchvision.models.convnext_tiny")
    assert text.count("are only GELU: take Saliency") == 2
    assert text.count("applies") == len(explaining_methods()) - 3  # nor is there a rule of DeepLift


def test_what_the_user_says(capsys: pytest.CaptureFixture[str]) -> None:
    text = described(capsys, "--weights", "shapes", "--resize_size", "null", "--interpolation", "bicubic")
    assert "as it is" in text
    assert "bicubic" in text
    assert text.count("the user") == 2


@pytest.mark.filterwarnings("ignore:.*does not say how its images")
def test_a_strangers(capsys: pytest.CaptureFixture[str]) -> None:
    text = described(capsys, "--network", f"{HERE}.RunsTwice", "--weights", "own", "--input_size", 32)
    for words in ("none: pixels in [0, 1]", "relu@0", "4×32×32", "relu@1", "8×32×32", "does not run", "needs a layer"):
        assert words in text


@pytest.mark.filterwarnings("ignore:.*does not say how its images")
def test_a_network_that_reads_its_class_token_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = described(capsys, "--network", f"{HERE}.ReadsTheClassToken", "--weights", "random")
    usable = {words[1]: words[-2] for line in text.splitlines() if len(words := line.split()) > 4 and "blocks" in line}
    assert (usable["blocks.0.drop@1"], usable["blocks.1.drop@1"]) == ("yes", "no")
    assert "the last first: blocks.1.value" in text


@pytest.mark.filterwarnings("ignore:.*(draws random numbers|does not say how its images)")
def test_oddities(capsys: pytest.CaptureFixture[str]) -> None:
    text = described(capsys, "--network", f"{HERE}.DrawsInVain", "--weights", "own", "--input_size", 32)
    assert "Odd: it draws random numbers" in text


def test_a_refusal() -> None:
    with pytest.raises(InputError, match="ends in a softmax"):
        describe_network.main(["--network", f"{HERE}.EndsInSoftmax", "--weights", "own", "--input_size", "32"])
