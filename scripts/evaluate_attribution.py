"""Computes attribution maps of every image of a folder and scores them, on any number of devices.

RUN gets a row for each image and method (results/*.parquet), summary.json, figures of the first images (figures/*.png,
and in TensorBoard), and config.yaml. The same command again continues an unfinished run.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ImageFolderDataModule
from lightning_modules import AttributionModule
from lightning_modules.running import run_evaluation, run_main


def main(args: list[str] | None = None) -> int:
    return run_evaluation(AttributionModule, ImageFolderDataModule, description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
