"""Files that are either whole or not there: written aside and then renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

FigureFormat = Literal["png", "pdf"]


def save_figure(figure: Figure, folder: Path, name: str, file_format: FigureFormat = "png") -> Path:
    """Writes a figure to ``folder/name.png`` and, if asked for, to ``name.pdf`` beside it; returns the last.

    The pixels are always written: TensorBoard shows them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for extension in ("png", "pdf") if file_format == "pdf" else ("png",):
        path = folder / f"{name}.{extension}"
        aside = folder / f"{name}.{extension}.tmp"
        # Letters as TrueType: publishers refuse matplotlib's default, and they can be searched and edited.
        with matplotlib.rc_context({"pdf.fonttype": 42, "text.parse_math": False}):
            figure.savefig(aside, format=extension)
        aside.replace(path)
    return path
