"""Shows everything on the embedded model and generated images: offline, in a few minutes on two cores.

Each step is a command that is printed before it runs, so that it can be tried with other options, or on other images.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from datamodules import write_shapes
from lightning_modules.running.cli import run_main
from lightning_modules.running.parser import HelpfulParser

SCRIPTS = Path(__file__).resolve().parent


def run(script: str, *options: str) -> None:
    """Prints a command of ours and runs it."""
    print(f"\n$ python scripts/{script} {shlex.join(options)}", flush=True)
    subprocess.run([sys.executable, str(SCRIPTS / script), *options], check=True)


def main(args: list[str] | None = None) -> None:
    parser = HelpfulParser(description=__doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="Folder for everything that the demo leaves.")
    out = Path(parser.parse_args(args).out)
    start = time.monotonic()
    shapes = out / "shapes"
    write_shapes(shapes, n_train=0, n_val=160, n_pairs=48, seed=0)
    for name in ("one_object", "two_objects", "scores", "robustness", "maximized", "ablation"):
        shutil.rmtree(out / name, ignore_errors=True)

    first = [str(next((shapes / "val" / name).iterdir())) for name in ("crescent", "heart", "star")]
    run("predict.py", *first, "--weights", "shapes", "--top_k", "3")
    strict = "[{class_path: PointingGame, init_args: {tolerance: 0}}, EnergyInBox]"
    for name, split in (("one_object", "val"), ("two_objects", "pairs")):
        run(
            "evaluate_attribution.py",
            *("--data.root", str(shapes / split), "--data.boxes", str(shapes / "annotations" / split)),
            *("--model.weights", "shapes", "--model.target", "label", "--model.metrics", strict),
            *("--trainer.accelerator", "cpu", "--out", str(out / name)),
        )
    run(
        "evaluate_attribution.py",
        *("--data.root", str(shapes / "pairs"), "--data.boxes", str(shapes / "annotations/pairs")),
        *("--model.weights", "shapes", "--model.target", "label", "--model.n_figures", "0"),
        *("--model.methods", "[GradCAM, GuidedBackprop, GuidedGradCAM, Saliency]"),
        *("--model.metrics", "[ClassDiscrimination, AverageDrop, InsertionDeletion, WeightRandomization]"),
        *("--data.batch_size", "24", "--trainer.limit_test_batches", "1"),
        *("--trainer.accelerator", "cpu", "--out", str(out / "scores")),
    )
    run(
        "evaluate_robustness.py",
        *("--data.root", str(shapes / "val"), "--model.weights", "shapes", "--model.n_figures", "8"),
        *("--trainer.accelerator", "cpu", "--out", str(out / "robustness")),
    )
    for name, options in (
        ("maximized", ("--data.classes", "all", "--model.steps", "192")),
        ("ablation", ("--data.classes", "[crescent, star]", "--model.steps", "128", "--model.ablation", "true")),
    ):
        run(
            "maximize_activation.py",
            *("--model.weights", "shapes", *options),
            *("--trainer.accelerator", "cpu", "--out", str(out / name)),
        )
    print(
        f"\nThe demo took {time.monotonic() - start:.0f} s. Figures: {out}/*/figures\n"
        f"Look at everything: {Path(sys.executable).parent / 'tensorboard'} --logdir {out}"
    )


if __name__ == "__main__":
    run_main(main)
