"""Letters that matplotlib's own font lacks, such as Chinese and Korean ones, from other fonts of the machine."""

from __future__ import annotations

import importlib.util
import logging
import unicodedata
import warnings
from functools import cache
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text

from lightning_modules.text import plain_lines

LAST_LATIN = "\u024f"
"""Up to this letter matplotlib's own font has all, so that nothing has to be looked up."""

PACKAGES = ("noto_cjk_sans_jp_regular", "manimgx_fonts")
"""Python packages that bring fonts along: those of the extra ``fonts`` of setup.cfg."""

REMEDY = "pip install noto-cjk-sans-jp-regular manimgx-fonts"

_warned: list[str] = []
"""What this process has warned of: once, since each figure would say it again."""


def use_fonts_with_all_letters(figure: Figure) -> None:
    """Gives each text whose letters its font lacks further families, the first of the machine that have them.

    Of letters that no font has, a warning says once what would help. What would steer a terminal or turn the order of
    letters round is blank from then on.
    """
    missing: dict[str, None] = {}
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        words, families = text.get_text(), text.get_fontfamily()
        if words.isascii() and words.replace("\n", "").isprintable():
            continue
        text.set_text(plain_lines(words))
        for letter in dict.fromkeys(text.get_text()):
            if letter <= LAST_LATIN or any(ord(letter) in _letters(family) for family in families):
                continue
            if family := _fallback(letter):
                families = [*families, family]
            elif unicodedata.category(letter) != "Cf":  # which only says how the letters beside it are drawn
                missing[letter] = None
        text.set_fontfamily(families)
    if missing and not _warned:
        _warned.append("".join(missing))
        warnings.warn(
            f"No font of this machine has the letters {_warned[0][:8]}: names in figures show boxes in their places. "
            f"The rows, tables and pages have the names. A font brings them into the figures: {REMEDY}.",
            stacklevel=3,
        )


@cache
def _letters(family: str) -> frozenset[int]:
    """The code points of a family's font, none of one that cannot be drawn with at any size."""
    font = get_font(findfont(FontProperties(family=[family])))
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def _fallback(letter: str) -> str | None:
    return next((family for family in _fallback_families() if ord(letter) in _letters(family)), None)


@cache
def _fallback_families() -> list[str]:
    """Families of the machine and of :data:`PACKAGES`, beside those that come with matplotlib; the plain ones first."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in Path(folder).rglob("*.[ot]t[fc]"):
                fontManager.addfont(path)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # such fonts often have no bold letters
    own = matplotlib.get_data_path()
    families = {font.name for font in fontManager.ttflist if not font.fname.startswith(own) and font.style == "normal"}
    odd = ("Serif", "Mono", "Color", "Last Resort", "Blank")
    return sorted(families, key=lambda name: (any(word in name for word in odd), "CJK" not in name, name))
