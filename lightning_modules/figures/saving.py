"""Figures as files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from datamodules.writing import written_whole
from lightning_modules.figures.style import use_fonts_with_all_letters
from lightning_modules.text import plain_name

FigureFormat = Literal["png", "pdf"]

Drawing = Callable[[], Figure]
"""What draws a figure when it is saved."""

TITLE, DESCRIPTION = "Title", "Description"
"""Keys of a PNG file's text: the figure in words."""


def save_figure(figure: Figure | Drawing, folder: Path, name: str, file_format: FigureFormat = "png") -> Path:
    """Writes a figure to ``folder/name.png`` and, if asked for, to ``name.pdf`` beside it; returns the last.

    The PNG is always written, for TensorBoard. Its text holds the figure's first lines.
    """
    figure = figure if isinstance(figure, Figure) else figure()
    use_fonts_with_all_letters(figure)
    words = {name: text for name, text in zip((TITLE, DESCRIPTION), _first_lines(figure)) if text}
    for extension in ("png", "pdf") if file_format == "pdf" else ("png",):
        path = folder / f"{name}.{extension}"
        # Letters as TrueType: publishers refuse matplotlib's default, and they can be searched and edited.
        style = matplotlib.rc_context({"pdf.fonttype": 42, "text.parse_math": False})
        with written_whole(path) as aside, style, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of each letter; we warn once
            figure.savefig(aside, format=extension, metadata=words if extension == "png" else None)
    return path


def pixels_of(path: Path) -> np.ndarray:
    """An image's file as uint8 ``(H, W, 3)``."""
    return np.asarray(Image.open(path).convert("RGB"))


def shows_one_image(path: Path) -> bool:
    """Whether a figure's file shows a single image, not the whole run: its name begins with the image's number.

    Example:
        >>> shows_one_image(Path("00012_star.png")), shows_one_image(Path("scores.png"))
        (True, False)
    """
    return re.match(r"\d{5}_", path.name) is not None


def figure_name(index: int, path: str) -> str:
    """What the file of an image's figure is called, of letters that every file system takes: of a long path, the end.

    Example:
        >>> figure_name(12, "stars/a star.png")
        '00012_stars_a_star'
    """
    name = plain_name(Path(path).with_suffix("").as_posix())[-80:]
    return f"{index:05d}_{name.encode()[-200:].decode(errors='ignore')}"  # file systems count bytes


def _first_lines(figure: Figure) -> list[str]:
    """The heading of a figure, or else the title of its first axes; then what else stands beside the axes."""
    heading = figure.get_suptitle() or next((axes.get_title() for axes in figure.axes), "")
    others = [text.get_text() for text in figure.texts if text.get_text() != heading]
    # What stands far apart in a line are sentences of their own.
    return [" ".join(re.sub(r" {2,}", "; ", text).split()) for text in (heading, "; ".join(others))]
