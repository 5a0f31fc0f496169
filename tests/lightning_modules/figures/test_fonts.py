from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from lightning_modules.figures import style as fonts
from lightning_modules.figures.comparison import curves_figure
from lightning_modules.figures.saving import save_figure
from lightning_modules.figures.sheets import Cell, mosaic
from lightning_modules.figures.style import shorten, use_fonts_with_all_letters, with_its_end, wrap, wrap_name
from tests.lightning_modules.test_text import FROM_OUTSIDE, STEERING

CAT, KOREAN_CAT = "\u732b", "\uace0\uc591\uc774"


def make_font(path: Path, letters: str, name: str) -> str:
    """A font in which each of the letters is a full square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square" for letter in letters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has met no such letter, on a machine that has matplotlib's fonts only."""
    known = list(font_manager.fontManager.ttflist)
    own = [font for font in known if font.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fonts, "_warned", [])
    monkeypatch.setattr(fonts, "PACKAGES", ())
    font_manager.fontManager.ttflist[:] = own
    fonts._fallback_families.cache_clear()
    fonts._letters.cache_clear()
    yield
    font_manager.fontManager.ttflist[:] = known
    fonts._fallback_families.cache_clear()
    fonts._letters.cache_clear()


def figure_of(text: str) -> Figure:
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.text(0.1, 0.3, text, fontsize=20, parse_math=False)
    return figure


def pixels(figure: Figure, folder: Path, name: str = "figure") -> np.ndarray:
    return np.asarray(Image.open(save_figure(figure, folder, name)).convert("L"))


def test_letters_come_from_fonts_of_the_machine_that_have_them(tmp_path: Path) -> None:
    for name, letters in (("Thai", "\u0e41"), ("Chinese CJK", CAT), ("Korean", CAT + KOREAN_CAT)):
        font_manager.fontManager.addfont(make_font(tmp_path / f"{name}.ttf", letters, f"Test {name}"))
    figure = figure_of(f"{CAT} cat {KOREAN_CAT}")
    use_fonts_with_all_letters(figure)
    assert figure.texts[0].get_fontfamily()[1:] == ["Test Chinese CJK", "Test Korean"]
    use_fonts_with_all_letters(figure)  # as for a figure that is saved twice
    assert len(figure.texts[0].get_fontfamily()) == 3
    squares = (pixels(figure_of(CAT), tmp_path) < 128).sum()
    assert squares == pytest.approx((20 / 72 * 50) ** 2, rel=0.15)


def test_ticks_legends_and_bold_titles_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def drawn(name: str) -> np.ndarray:
        figure = curves_figure({CAT: [0.1, 0.2]}, CAT, "x", "y", [CAT, "b"])
        figure.suptitle(CAT, fontweight="bold")
        return pixels(figure, tmp_path, name)

    with pytest.warns(UserWarning, match=f"has the letters {CAT}"):
        boxes = drawn("boxes")
    font_manager.fontManager.addfont(make_font(tmp_path / "font.ttf", CAT, "Test Chinese"))
    fonts._fallback_families.cache_clear()
    fonts._letters.cache_clear()
    assert not np.array_equal(drawn("letters"), boxes)
    assert not caplog.records


@pytest.mark.slow
def test_without_a_font_there_is_one_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"the letters {CAT}: .* pip install noto-cjk-sans-jp-regular") as warned:
        save_figure(figure_of(CAT), tmp_path, "one", "pdf")
    assert len(warned) == 1
    save_figure(figure_of(KOREAN_CAT), tmp_path, "two")  # a warning would be an error


def test_for_latin_letters_nothing_is_looked_up() -> None:
    use_fonts_with_all_letters(figure_of("a cat, Käfer, \u0142\u00f3d\u017a, ± 3 × 4"))
    assert fonts._letters.cache_info().currsize == 0


def test_what_matplotlibs_font_has_is_drawn_in_it() -> None:
    figure = figure_of("\u041a\u043e\u0448\u043a\u0430, \u0393\u03ac\u03c4\u03b1, \u0642\u0637\u0629, \u2264 L\u221e")
    use_fonts_with_all_letters(figure)
    assert len(figure.texts[0].get_fontfamily()) == 1


def test_the_order_of_fonts(tmp_path: Path) -> None:
    for name in ("Zapf", "Noto Serif CJK", "Noto Color Emoji", "Noto Sans CJK JP"):
        font_manager.fontManager.addfont(make_font(tmp_path / f"{name}.ttf", CAT, name))
    assert fonts._fallback_families() == ["Noto Sans CJK JP", "Zapf", "Noto Serif CJK", "Noto Color Emoji"]


@pytest.mark.parametrize(
    ("package", "letters"),
    [
        ("noto_cjk_sans_jp_regular", f"{CAT}{KOREAN_CAT}\u306d\u3053"),
        ("manimgx_fonts", "\u0e41\U0001f431\u092c"),
        ("fonts_of_a_test", CAT),
    ],
)
def test_fonts_that_packages_bring(package: str, letters: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fonts_of_a_test").mkdir()
    (tmp_path / "fonts_of_a_test/__init__.py").touch()
    make_font(tmp_path / "fonts_of_a_test/font.otf", CAT, "Test Packaged")
    monkeypatch.syspath_prepend(tmp_path)
    pytest.importorskip(package)
    monkeypatch.setattr(fonts, "PACKAGES", (package, "not_installed"))
    use_fonts_with_all_letters(figure_of(letters))  # a warning would be an error


@pytest.mark.slow
def test_names_of_whatever_letters_are_drawn(tmp_path: Path) -> None:
    font = make_font(tmp_path / "font.ttf", f"{CAT}{KOREAN_CAT}\U0001f468\U0001f469", "Test")
    font_manager.fontManager.addfont(font)
    names = [*zip(FROM_OUTSIDE.values(), FROM_OUTSIDE.values()), *STEERING.values()]
    for start in range(0, len(names), 8):
        some = names[start : start + 8]
        figure = curves_figure({text: [0.1, 0.2] for text, _ in some}, "\x1b[31mtitle", "\u202ex", "y")
        shown = [text.get_text() for text in figure.axes[0].get_legend().texts]
        assert [text.split() for text in shown] == [text.split() for _, text in some]
        assert figure.axes[0].get_title() == " [31mtitle"
        assert figure.axes[0].get_xlabel() == " x"
        assert save_figure(figure, tmp_path, f"figure_{start}", "pdf").exists()


def test_a_name_that_begins_with_an_underscore_has_its_place_in_the_legend() -> None:
    figure = curves_figure({"_hidden": [0.1, 0.2], "seen": [0.3, 0.4]}, "title", "x", "y")
    assert [text.get_text().strip() for text in figure.axes[0].get_legend().texts] == ["_hidden", "seen"]


@pytest.mark.parametrize("most", [8, 9, 20])
def test_wide_letters_count_twice(most: int) -> None:
    long = f"{CAT}a" * 40
    *lines, last = wrap(long, most)
    first, second = wrap_name(long, most).split("\n")
    for text in (shorten(long, most), with_its_end(long, most), *lines, first, second):
        assert most - 2 <= sum(2 if letter == CAT else 1 for letter in text) <= most
    assert "".join([*lines, last]) == long
    assert with_its_end(long, most).endswith(f"{CAT}a")
    assert second.endswith(" …")


def test_of_a_long_name_a_mosaic_shows_two_lines() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for side in range(80, 86):
            figure = mosaic([[Cell(None, foot=CAT * 40)]], "title", side)
            assert len(figure.axes[0].texts) == 2 + 2 + 1
            figure.savefig(io.BytesIO()) if side == 80 else None
