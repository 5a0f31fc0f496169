"""Makes images of what a network takes for its classes, or of what excites channels, on any number of devices.

RUN gets a PNG for each image (images/), a row for each (results/*.parquet), summary.json, contact sheets and figures of
how the first images grew (figures/*.png, and in TensorBoard), and config.yaml. --model.ablation true makes each image
four times, without and with the total-variation loss and the random shifts, and shows them in figures/ablation.png.
--model.judges '[efficientnet_lite0]' asks another network what each image is. --data.classes 'features.28:*' is every
channel of a layer; --data.exemplars FOLDER shows, beside each image, the photos of the folder that excite the same
most. The same command again continues an unfinished run.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from datamodules import ClassIndexDataModule
from lightning_modules import ActivationMaximizationModule, SynthesisProgress
from lightning_modules.running import run_evaluation, run_main


def main(args: list[str] | None = None) -> int:
    return run_evaluation(
        ActivationMaximizationModule,
        ClassIndexDataModule,
        description=__doc__,
        args=args,
        callbacks=[SynthesisProgress],
    )


if __name__ == "__main__":
    run_main(main)
