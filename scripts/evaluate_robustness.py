"""Attacks every image of a folder under a sweep of budgets, on any number of devices: how easily is the network fooled?

RUN gets a row for each image and budget (results/*.parquet; eps 0 = clean), summary.json, figures of the first images
and the accuracy over eps (figures/*.png, and in TensorBoard), and config.yaml. The same command again continues an
unfinished run.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ImageFolderDataModule
from lightning_modules import RobustnessModule
from lightning_modules.running import run_evaluation, run_main

# So that --model.attack.norm 2 need not name the attack.
DEFAULTS = {"model.attack": {"class_path": "lightning_modules.FGSM"}}


def main(args: list[str] | None = None) -> int:
    return run_evaluation(RobustnessModule, ImageFolderDataModule, description=__doc__, args=args, defaults=DEFAULTS)


if __name__ == "__main__":
    run_main(main)
