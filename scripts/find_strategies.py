"""Finds the strategies that a network uses over a whole data set: clusters of the maps of each class, and watermarks.

RUN is what evaluate_attribution.py left. RUN/strategies gets clusters.parquet, summary.json, a contact sheet of each
class that falls apart, and TensorBoard's projector; the page of RUN gets a section.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ImageFolderDataModule
from lightning_modules import AttributionModule
from lightning_modules.running import run_main
from lightning_modules.running.strategies import run_strategies


def main(args: list[str] | None = None) -> int:
    return run_strategies(AttributionModule, ImageFolderDataModule, description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
