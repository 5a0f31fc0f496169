"""Shows everything, first on a real network and real photos, then where the truth is known: offline, in minutes.

Each step is a command that is printed, so that it can be tried with other options, or other images. One page tells of
them all: index.html in --out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import _while_importing  # noqa: F401  first

from datamodules import write_pictures, write_shapes
from lightning_modules.running import demonstrate, run_main
from lightning_modules.running.folder.run_folder import RunFolder
from lightning_modules.running.parsing.parser import HelpfulParser


def main(args: list[str] | None = None) -> int:
    parser = HelpfulParser(description=__doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="Folder for everything that the demo leaves.")
    out, start = Path(parser.parse_args(args).out), time.monotonic()
    folder = RunFolder(out)
    folder.lock()  # against a demo beside, until this one ends
    write_pictures(out / "pictures")
    write_shapes(out / "shapes", n_train=0, n_val=160, n_pairs=48, seed=0)
    code = demonstrate(Path(__file__).resolve().with_name("demo.yml"), out)
    if code == 0:
        board = f"{Path(sys.executable).parent / 'tensorboard'} --logdir {out}"
        print(f"\nThe demo took {time.monotonic() - start:.0f} s. Everything on one page: {out / 'index.html'}")
        print(f"In TensorBoard: {board}")
    return code


if __name__ == "__main__":
    run_main(main)
