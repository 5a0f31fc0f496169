from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.figures.saving import save_figure
from lightning_modules.pages.pictures import MOST_PIXELS, SMALL, Album, Picture, embedded


def pixels_of(picture: Picture) -> np.ndarray:
    kind, _, data = picture.source.removeprefix("data:image/").partition(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == kind.upper()
        assert image.size == (picture.width, picture.height)
        return np.asarray(image.convert("RGB"))


def noise(path: Path, height: int, width: int) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_small_file_is_embedded_as_it_is(tmp_path: Path) -> None:
    pixels = noise(tmp_path / "00003_a_star.png", 8, 9)
    picture = embedded(tmp_path / "00003_a_star.png")
    assert picture.source.startswith("data:image/png;base64,")
    assert (pixels_of(picture) == pixels).all()
    assert picture.alt == "a star"


def test_a_large_file_is_compressed(tmp_path: Path) -> None:
    noise(tmp_path / "wide.png", 60, MOST_PIXELS * 2)
    assert (tmp_path / "wide.png").stat().st_size > SMALL
    picture = embedded(tmp_path / "wide.png", "a title", "more")
    assert pixels_of(picture).shape == (30, MOST_PIXELS, 3)
    assert len(picture.source) < (tmp_path / "wide.png").stat().st_size / 4
    assert picture.alt == "a title: more"


@pytest.mark.parametrize("title", ["a cat", "Кот <b>", "x" * 100])
def test_a_figure_says_what_it_shows(tmp_path: Path, title: str) -> None:
    figure = Figure((2, 1))
    figure.suptitle(title)
    figure.text(0, 0, "label: cat   predicted: a\nlong name")
    picture = embedded(save_figure(figure, tmp_path, "00000_cat"))
    assert (picture.title, picture.text) == (title, "label: cat; predicted: a long name")


def test_a_figure_without_a_heading_has_the_title_of_its_axes(tmp_path: Path) -> None:
    figure = Figure((2, 1))
    figure.subplots().set_title("insertion\n(higher is better)")
    save_figure(figure, tmp_path, "curve", "pdf")
    assert embedded(tmp_path / "curve.png").alt == "insertion (higher is better)"


def test_an_album_is_bounded_by_number_and_by_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for path in paths:
        noise(path, 8, 8)
    size = len(embedded(paths[0]).source)
    assert [picture.title for picture in Album(100 * size).embed(paths, most=3)] == ["0", "1", "2"]
    album = Album(2 * size)
    assert [picture.title for picture in album.embed(paths, most=3)] == ["0", "1"]
    assert album.embed(paths, most=3) == []
    assert album.bytes_left == 0


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_what_is_no_image_is_told(tmp_path: Path, content: bytes | str) -> None:
    noise(tmp_path / "good.png", 64, 64)
    broken = (tmp_path / "good.png").read_bytes()[:3000] if content == "cut" else content
    assert isinstance(broken, bytes)
    (tmp_path / "bad.png").write_bytes(broken)
    album = Album(10**6)
    pictures = album.embed([tmp_path / "bad.png", tmp_path / "good.png"], most=5)
    assert [picture.title for picture in pictures] == ["good"]
    assert album.unread[0].startswith("bad.png cannot be read")
