"""Shows everything, first on a real network and real pictures, then where the truth is known: offline, in minutes.

Each step is a command that is printed before it runs, so that it can be tried with other options, or other images.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from datamodules import write_pictures, write_shapes
from lightning_modules.running import run_main
from lightning_modules.running.parser import HelpfulParser

SCRIPTS = Path(__file__).resolve().parent


def main(args: list[str] | None = None) -> None:
    parser = HelpfulParser(description=__doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="Folder for everything that the demo leaves.")
    out, start = Path(parser.parse_args(args).out), time.monotonic()
    write_pictures(out / "pictures")
    write_shapes(out / "shapes", n_train=0, n_val=160, n_pairs=48, seed=0)
    for step in SCRIPTS.joinpath("demo.txt").read_text().splitlines():  # OUT stands for the demo's folder
        script, *options = (word.replace("OUT", str(out)) for word in shlex.split(step))
        if "--out" in options:
            shutil.rmtree(options[-1], ignore_errors=True)
        print(f"\n$ python scripts/{script} {shlex.join(options)}", flush=True)
        subprocess.run([sys.executable, str(SCRIPTS / script), *options], check=True)
    board = f"{Path(sys.executable).parent / 'tensorboard'} --logdir {out}"
    print(f"\nThe demo took {time.monotonic() - start:.0f} s. Figures: {out}/*/figures\nLook at everything: {board}")


if __name__ == "__main__":
    run_main(main)
