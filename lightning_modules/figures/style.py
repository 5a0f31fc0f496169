"""What the figures share: colours, scales of maps, headings, names of any length, and fonts for all letters."""

from __future__ import annotations

import functools
import importlib.util
import io
import logging
import textwrap
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text as FigureText
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text
from torch import Tensor

from lightning_modules.gradients.scaling import scaled_near_one
from lightning_modules.methods.maps import magnitude
from lightning_modules.text import plain, plain_lines

# Okabe and Ito's colours, which colour-blind readers can tell apart, with markers for print in grey.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
SIGNED_COLORS = "RdBu_r"
MAGNITUDE_COLORS = "inferno"
PERCENTILE = 99.5
"""Maps are scaled to this percentile of their magnitude: one bright pixel should not turn the rest black."""

_CONSOLE = Console(file=io.StringIO())
"""Nothing is printed there, but Rich counts the places of letters by it."""

Drawn = TypeVar("Drawn", bound=Callable[..., Figure])


def plain_text(draw: Drawn) -> Drawn:
    """Decorates what draws names of files and classes: dollars are no formulas there, and Chinese letters no boxes."""

    @functools.wraps(draw)
    def drawn(*args: Any, **options: Any) -> Figure:
        with matplotlib.rc_context({"text.parse_math": False}):
            figure = draw(*args, **options)
        use_fonts_with_all_letters(figure)
        return figure

    return cast(Drawn, drawn)


class ScaledMap:
    """A map ready to be drawn: alone in [-1, 1] or [0, 1], and its magnitude in [0, 1]."""

    def __init__(self, attribution: Tensor) -> None:
        attribution = attribution.detach().cpu().double().nan_to_num()
        # Near 1, as channels of 3e38 add up to infinity in float32.
        scaled = scaled_near_one(attribution[None])[0].float()
        factor = float(attribution.abs().max()) / (float(scaled.abs().max()) or 1)
        self.is_signed = attribution.shape[0] > 1 or bool((attribution < 0).any())
        alone = scaled.sum(0)
        strength = magnitude(scaled[None])[0]
        full = percentile(alone.abs())
        self.scale = factor * full
        self.alone = (alone / (full or 1)).clamp(-1, 1).numpy()
        self.magnitude = (strength / (percentile(strength) or 1)).clamp(0, 1).numpy()


def show_overlay(axes: Axes, pixels: np.ndarray, values: ScaledMap) -> None:
    """Draws the magnitude of a map over the pixels that it covers."""
    axes.imshow(pixels, extent=(0, 1, 0, 1))
    axes.imshow(
        values.magnitude, cmap=MAGNITUDE_COLORS, vmin=0, vmax=1, alpha=0.75 * np.sqrt(values.magnitude),
        extent=(0, 1, 0, 1),
    )  # fmt: skip
    axes.set_axis_off()


def percentile(values: Tensor) -> float:
    """The percentile that is drawn as 1; the maximum where so few pixels are lit that it would be zero."""
    flat = values.flatten()
    return float(torch.quantile(flat, PERCENTILE / 100)) or float(flat.max())


def heading(figure: Figure, title: str, subtitle: str = "", times_as_high: float = 1.0) -> None:
    """Writes the first lines of a figure, wrapped to its width; of a long title, such as a path, the end stays.

    Args:
        figure: The figure.
        title: The first line.
        subtitle: What stands below.
        times_as_high: How many times as high it is as others, so that the lines stand as far apart.
    """
    width = float(figure.get_figwidth()) - 0.3
    title = with_its_end(title, int(8.5 * width))
    figure.suptitle(title, x=0.02, y=1 - 0.02 / times_as_high, ha="left", va="top", fontsize=13, fontweight="bold")
    if not subtitle:
        return
    # An inch holds so many letters of each size.
    size, lines = 11, wrap(subtitle, int(11 * width))
    if len(lines) > 1:
        size, lines = 9, wrap(subtitle, int(13.5 * width))
    if len(lines) > 2:
        size, lines = 8, wrap(subtitle, int(15 * width), most_lines=3)
    text = plain(subtitle) if len(lines) == 1 else "\n".join(lines)
    figure.text(0.02, 1 - 0.095 / times_as_high, text, fontsize=size, va="center")


def wrap(text: str, most: int, most_lines: int | None = None) -> list[str]:
    """The text in lines of ``most`` letters, of which Chinese ones count twice; what does not fit is left out.

    Example:
        >>> wrap("a large dog", 7), wrap("\u732b\u732b\u732b\u732b", 7), wrap("a large dog", 7, most_lines=1)
        (['a large', 'dog'], ['猫猫猫', '猫'], ['a …'])
    """
    text = plain(text)
    if cell_len(text) == len(text):
        return textwrap.wrap(text, max(most, 2), max_lines=most_lines, placeholder=" …")
    lines = [line.plain.rstrip() for line in Text(text).wrap(_CONSOLE, max(most, 2))]
    if most_lines is not None and len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], set_cell_size(lines[most_lines - 1], most - 2).rstrip() + " …"]
    return lines


def wrap_name(name: str, most: int = 30) -> str:
    """A name such as a method's with its options, in at most two lines; options have a line of their own.

    Example:
        >>> wrap_name("IntegratedGradients(n_steps=10)").splitlines()
        ['IntegratedGradients', '(n_steps=10)']
    """
    head, bracket, options = name.partition("(")
    if bracket and cell_len(name) > most >= cell_len(head):
        return "\n".join([plain(head), *wrap(bracket + options, most, most_lines=1)])
    return "\n".join(wrap(name, most, most_lines=2))


def shorten(name: str, most: int = 26) -> str:
    """The name, cut to ``most`` characters, of which Chinese ones count twice.

    Example:
        >>> shorten("tree frog", 6), shorten("\u732b\u732b\u732b\u732b", 6)
        ('tree…', '猫猫…')
    """
    name = plain(name)
    return name if cell_len(name) <= most else set_cell_size(name, most - 1).rstrip(" ") + "…"


def with_its_end(text: str, most: int) -> str:
    """Of a text of more than ``most`` characters, such as a path, the end.

    Example:
        >>> with_its_end("features.12.expand3x3:17", 15)
        '…2.expand3x3:17'
    """
    text = plain(text)
    if cell_len(text) <= most:
        return text
    return "…" + set_cell_size(text[::-1], most - 1).rstrip(" ")[::-1]


def in_legend(name: str) -> str:
    """A name as the label of a line: matplotlib leaves those out that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


def brief(value: float) -> str:
    """A number in few letters.

    Example:
        >>> brief(1816.55), brief(0.012345)
        ('1,817', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


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
    for text in figure.findobj(FigureText):
        assert isinstance(text, FigureText)
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
