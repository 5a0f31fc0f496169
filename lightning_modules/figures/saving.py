"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

from lightning_modules.whole_files import written_whole

FigureFormat = Literal["png", "pdf"]


def save_figure(figure: Figure, folder: Path, name: str, file_format: FigureFormat = "png") -> Path:
    """Writes a figure to ``folder/name.png`` and, if asked for, to ``name.pdf`` beside it; returns the last.

    The pixels are always written: TensorBoard shows them.
    """
    for extension in ("png", "pdf") if file_format == "pdf" else ("png",):
        path = folder / f"{name}.{extension}"
        # Letters as TrueType: publishers refuse matplotlib's default, and they can be searched and edited.
        with written_whole(path) as aside, matplotlib.rc_context({"pdf.fonttype": 42, "text.parse_math": False}):
            figure.savefig(aside, format=extension)
    return path
