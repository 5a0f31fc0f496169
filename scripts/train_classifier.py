"""Fine-tunes VGG16 on a folder of class folders, or trains one of any width from scratch, so that it can be explained.

The result, RUN/vgg16.pth, is a plain VGG16 with its class names inside; every other script takes it as --model.weights.
--data.root names the folder; --data.help shows the data's other options.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ImageFolderDataModule
from lightning_modules import ClassifierModule
from lightning_modules.running import run_main, run_training


def main(args: list[str] | None = None) -> None:
    run_training(ClassifierModule, ImageFolderDataModule, description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
