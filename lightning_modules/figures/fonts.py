"""Letters that matplotlib's own font lacks, such as Chinese and Korean ones, in a font that has them."""

from __future__ import annotations

import importlib.util
import logging
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

from lightning_modules.escaping import plain_lines

LAST_LATIN = "\u024f"
"""Up to this letter every font of matplotlib's has all, so that nothing has to be looked up."""

PACKAGES = (
    *("noto_cjk_sans_jp_regular", "manimgx_fonts"),
    *("koreanize_matplotlib", "matplotlib_fontja", "japanize_matplotlib", "mplfonts"),
)
"""Python packages that bring fonts along: those of the extra ``fonts``, and others that people have."""

REMEDY = "pip install noto-cjk-sans-jp-regular manimgx-fonts"
"""What brings letters of nearly all scripts; the extra ``fonts`` of setup.cfg."""

LARGE = ("cjk", "sourcehan", "msyh", "malgun", "pingfang", "hiragino", "wqy", "fallback", "unicode", "unifont")
ODD = ("serif", "mono", "bold", "italic", "oblique", "black", "light", "thin", "condensed")
UNSEEN = ("color", "lastresort", "blank", "keycaps")
"""Parts of the names of fonts: of those that have many letters, of those that stand out, and of those whose letters
cannot be drawn or are none."""


class _Told:
    """Whether it was told that letters are missing: once for each process, since each figure would say it again."""

    yet = False


def missing_letters_are_told() -> bool:
    """Whether this process has warned of letters that no font has."""
    return _Told.yet


def take_missing_letters_as_told() -> None:
    """Lets this process say nothing of letters that no font has: another one has."""
    _Told.yet = True


def use_fonts_with_all_letters(figure: Figure) -> bool:
    """Gives each text of a figure whose letters its font lacks further fonts, if there are any that have them.

    Returns whether all letters will be seen. If not, a warning says once what would help. What would steer a terminal
    or turn the order of letters round is blank from then on.
    """
    are_seen = True
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        words = text.get_text()
        if words.isascii() and words.replace("\n", "").isprintable():
            continue
        if (calm := plain_lines(words)) != words:
            text.set_text(calm)
        if max(calm) > LAST_LATIN:
            are_seen &= _use_fonts(text)
    return are_seen


def _use_fonts(text: Text) -> bool:
    needed = {ord(letter) for letter in text.get_text() if letter > LAST_LATIN and not _is_unseen(letter)}
    families = list(text.get_fontfamily())
    for family in families:
        properties = text.get_fontproperties().copy()
        properties.set_family(family)
        needed -= _found(str(font_manager.findfont(properties)), needed)
    fonts = _fonts_with(needed) if needed else []
    if fonts:
        text.set_fontfamily([*families, *(_family(font) for font in fonts)])
    missing = needed.difference(*(_found(font, needed) for font in fonts))
    if missing and not _Told.yet:
        _Told.yet = True
        some = "".join(map(chr, sorted(missing)[:8]))
        warnings.warn(
            f"No font of this machine has the letters {some}: names in figures show boxes in their places. The rows, "
            f"tables and pages have the names. A font brings them into the figures: {REMEDY}.",
            stacklevel=2,
        )
    return not missing


def _is_unseen(letter: str) -> bool:
    """Whether it only says how the letters beside it are drawn."""
    return unicodedata.category(letter) in ("Cf", "Zs") or "\ufe00" <= letter <= "\ufe0f"


def _fonts_with(letters: Iterable[int]) -> list[str]:
    """Files of fonts that have the letters, or as many of them as there are fonts of; the fewer files, the better."""
    missing = set(letters)
    fonts = []
    for font in _known_fonts():
        if found := _found(font, missing):
            fonts.append(font)
            missing -= found
        if not missing:
            break
    return fonts


def _found(font: str, letters: Iterable[int]) -> set[int]:
    """Those of the letters that a font has."""
    wanted = np.fromiter(letters, np.uint32)
    return set(wanted[np.isin(wanted, _letters(font))].tolist())


@cache
def _letters(font: str) -> np.ndarray:
    """The code points of all letters of a font, none of one that cannot be drawn with."""
    try:
        file = FT2Font(font)
        return np.fromiter(file.get_charmap() if file.scalable else (), np.uint32)
    except (OSError, RuntimeError):
        return np.zeros(0, np.uint32)


@cache
def _known_fonts() -> list[str]:
    """Files of fonts: those that matplotlib knows, the machine has and packages bring; the plain and large first."""
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    files = {*known, *font_manager.findSystemFonts(), *map(str, _packaged())}
    return sorted((file for file in files if not _has(file, UNSEEN)), key=_order)


def _order(file: str) -> tuple[bool, bool, str]:
    return _has(file, ODD), not _has(file, LARGE), file


def _has(file: str, parts: Iterable[str]) -> bool:
    name = Path(file).stem.lower().replace(" ", "").replace("-", "")
    return any(part in name for part in parts)


def _packaged() -> Iterator[Path]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            yield from (path for path in Path(folder).rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc"))


@cache
def _family(font: str) -> str:
    """The name under which matplotlib finds a font's file, which it may have to be told of."""
    if not any(entry.fname == font for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(font)
    # Such fonts often come in one weight only; that bold text is drawn in it is no news.
    logging.getLogger("matplotlib.font_manager").addFilter(_is_of_use)
    return next(entry.name for entry in font_manager.fontManager.ttflist if entry.fname == font)


def _is_of_use(record: logging.LogRecord) -> bool:
    return "Failed to find font weight" not in str(record.msg)
