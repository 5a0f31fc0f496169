"""Draws the images of a run that matter: surest mistakes, worst scores, whatever a condition on the rows picks.

RUN is what an evaluation or a comparison left. RUN/looks gets a folder of figures, which TensorBoard shows, and the
page of RUN a section.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ImageFolderDataModule
from lightning_modules import AttributionModule, RobustnessModule
from lightning_modules.running import run_look, run_main


def main(args: list[str] | None = None) -> int:
    classes = [(module, ImageFolderDataModule) for module in (AttributionModule, RobustnessModule)]
    return run_look(classes, description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
