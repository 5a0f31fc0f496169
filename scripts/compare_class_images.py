"""Class images of ours beside those of lucent and Horama: same network, classes, judges and processor time.

The options are those of maximize_activation.py, and the peers'. RUN gets what it gets there, and
figures/comparison.png; the table tells how often the judges name the classes, and what each image cost.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first
from benchmarks.class_images import ClassImageComparison

from datamodules import ClassIndexDataModule
from lightning_modules import SynthesisProgress
from lightning_modules.running import run_evaluation, run_main


def main(args: list[str] | None = None) -> int:
    return run_evaluation(
        ClassImageComparison,
        ClassIndexDataModule,
        description=__doc__,
        args=args,
        callbacks=[SynthesisProgress],
        defaults={"model.n_figures": 0},
    )


if __name__ == "__main__":
    run_main(main)
