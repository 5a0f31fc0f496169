"""TensorBoard as the report of a run: its figures as they come and, at the end, its numbers and tables."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lightning_modules.figures.saving import shows_one_image
from lightning_modules.results.report import IMAGES, RUN, Report
from lightning_modules.text import plain_lines


class Board:
    """A file of TensorBoard's of its own, which a continued run replaces: otherwise numbers would stand there twice.

    Args:
        folder: TensorBoard's folder.
        figures: Where the figures' files are.
    """

    def __init__(self, folder: Path, figures: Path) -> None:
        for old in folder.glob("events.out.tfevents.*.report"):
            old.unlink()
        self.figures = figures
        self.shown: set[str] = set()
        self.writer = SummaryWriter(str(folder), filename_suffix=".report")

    def show_figures(self) -> None:
        """Shows the figures that came since it was called last."""
        for path in sorted(self.figures.glob("[!.]*.png")):
            if path.name in self.shown:
                continue
            self.shown.add(path.name)
            group = IMAGES if shows_one_image(path) else RUN
            file_writer: Any = self.writer.file_writer
            file_writer.add_summary(Summary(value=[Summary.Value(tag=f"{group}/{path.stem}", image=_as_it_is(path))]))
        self.writer.flush()

    def show_report(self, report: Report, command: str, settings: Mapping[str, bool | str | float]) -> None:
        """Shows the numbers and tables of all rows, and what made them."""
        scalars = {name: value for name, value in report.scalars.items() if value is not None}
        for name, value in scalars.items():
            self.writer.add_scalar(name, value, 0)
        shown = textwrap.indent(plain_lines(command), "    ")  # which Markdown shows as it is
        self.writer.add_text("report", f"{report.markdown()}\n\nThe command:\n\n{shown}\n", 0)
        writer: Any = self.writer.file_writer
        # Without the first part, a list of settings and scores, of which TensorBoard would show one run's for all runs.
        for part in hparams(dict(settings), scalars)[1:]:
            writer.add_summary(part)

    def close(self) -> None:
        self.writer.close()


def _as_it_is(path: Path) -> Any:
    """The image of a PNG file, which is not decoded: that, and to encode it again, takes as long as half a drawing."""
    with Image.open(path) as image:
        width, height, channels = *image.size, len(image.getbands())
    return Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=path.read_bytes())
