from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from predict import main

from datamodules.images.decode import UNDER_ALPHA
from lightning_modules import InputError
from tests.lightning_modules.fragile import NETWORK


def test_files_and_folders(call: Callable, shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    star = next((shapes / "val/star").iterdir())
    code = call(main, star, shapes / "val/heart", "--weights", "shapes", "--top_k", 2, "--accelerator", "cpu")
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("%" in line and "│" in line for line in lines) == 2 * 11
    first = next(line for line in lines if "%" in line and "│" in line)
    assert "star" in first
    assert " 7 " in first


def test_failures_are_reported_and_the_rest_is_done(
    call: Callable, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    star = next((shapes / "val/star").iterdir())
    options = ["--weights", "shapes", "--accelerator", "cpu", "--batch_size", 1]
    code = call(main, "text.jpg", star, "http://127.0.0.1:1/x.jpg", *options)
    output = capsys.readouterr().out
    assert code == 1
    assert "failed text.jpg: not an image in a known format" in output
    assert "failed http://127.0.0.1:1/x.jpg: cannot be fetched" in output
    assert sum("%" in line and "│" in line for line in output.splitlines()) == 5


def test_an_image_without_logits_fails(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, brightness in (("white", 255), ("grey", 128), ("black", 0)):
        Image.new("RGB", (40, 40), (brightness,) * 3).save(tmp_path / f"{name}.png")
    options = ["--network", NETWORK, "--weights", "random", "--accelerator", "cpu"]
    code = call(main, "white.png", "grey.png", "black.png", *options)
    output = capsys.readouterr().out
    assert code == 1
    assert "failed white.png: the network's logits are NaN" in output
    assert sum("%" in line for line in output.splitlines()) == 2 * 3


def test_names_of_whatever_letters(call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class of such a name once ended this in an error; a file of such a name was shown as something else."""
    Image.new("RGB", (40, 40), (128,) * 3).save(tmp_path / "[link=x] :cat:.png")
    (tmp_path / "[").mkdir()
    (tmp_path / "[/b] :dog: \x1b[31m.png").write_text("no image")
    names = json.dumps(["[/b]", "[red]x :cat:", "\u202e\u732b"])
    options = ["--network", NETWORK, "--weights", "random", "--accelerator", "cpu", "--class_names", names]
    code = call(main, "[link=x] :cat:.png", "[", *options)
    output = capsys.readouterr().out
    assert code == 1
    for text in (
        "[link=x] :cat:.png",
        " [/b] ",
        " [red]x :cat: ",
        "  \u732b ",
        "failed [/b] :dog:  [31m.png: not an image",
    ):
        assert text in output, text
    assert "\x1b" not in output


def test_what_may_be_otherwise_than_meant_is_told(
    call: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30), "gray").save(tmp_path / name, exif=exif)
    Image.fromarray(np.zeros((30, 40, 4), np.uint8)).save(tmp_path / "clear.png")
    options = ["--network", NETWORK, "--weights", "random", "--accelerator", "cpu"]
    assert call(main, "a.jpg", "b.jpg", "clear.png", *options) == 0
    output = capsys.readouterr().out
    assert "2 images ask by their EXIF orientation to be turned" in output
    assert "What turns them: --exif_orientation true" in output
    assert f"clear.png: {UNDER_ALPHA}" in output
    assert call(main, "a.jpg", "b.jpg", *options, "--exif_orientation", "true") == 0
    assert "EXIF" not in capsys.readouterr().out


def test_images_named_after_classes_are_judged(call: Callable, shapes: Path, tmp_path: Path, capsys: Any) -> None:
    """By folder or file, whoever made them; nothing is said of an image that is named after none, or after two."""
    names = {"star": ["made/star.png", "made/0007_star_seed0.png", "star/2.png"], "heart": ["made/cross-1.png"]}
    names |= {"ring": ["ring/star.png", "made/12.png", "made/a ring.png"]}
    for shape, files in names.items():
        for file, photo in zip(files, sorted((shapes / "val" / shape).iterdir()), strict=False):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            Image.open(photo).save(tmp_path / file)
    options = ["--weights", "shapes", "--accelerator", "cpu", "--top_k", 1]
    assert call(main, "made", "star", "ring", *options) == 0
    said = "Of 4 images named after a class by file or folder: named so 75.0% first, "
    output = " ".join(capsys.readouterr().out.split())
    assert said in output
    assert "among the first five; mean probability of that class 0.7" in output
    assert call(main, "made/12.png", *options) == 0
    assert "named after" not in capsys.readouterr().out


def test_bad_options(call: Callable, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No weights are called 'nothing'"):
        call(main, "x.jpg", "--weights", "nothing")
    with pytest.raises(SystemExit, match="2"):
        call(main)
