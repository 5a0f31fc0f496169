"""Times VGG Lens against its peers, side by side in one process, on full-size VGG16 (random weights) and equal inputs.

Each row's outputs are checked to be equal before anything is timed. The rows take turns, ours, theirs and the bare
network, so that whatever slows the machine slows all. Medians, the spread in brackets, ratios of medians.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first
from benchmarks.outcome import benchmark

from lightning_modules.running import run_main


def main(args: list[str] | None = None) -> None:
    benchmark(description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
