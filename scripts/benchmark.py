"""Times VGG Lens against its peers, side by side in one process, on full-size VGG16 (random weights) and equal inputs.

Each row's outputs are checked to be equal before anything is timed. The rows take turns, ours, theirs and the bare
network, so that whatever slows the machine slows all. Medians, the spread in brackets, ratios of medians.
"""

from __future__ import annotations

from pathlib import Path

import _while_importing  # noqa: F401  first
from benchmarks.all_rows import ROWS
from benchmarks.outcome import run_benchmark

from lightning_modules.running import run_main
from lightning_modules.running.parsing.parser import HelpfulParser


def main(args: list[str] | None = None) -> None:
    parser = HelpfulParser(description=__doc__)
    parser.add_argument("--rows", type=str, default="all", help=f"With commas between: {', '.join(ROWS)}; or none.")
    parser.add_argument("--rounds", type=int, default=3, help="Times that each contender has its turn.")
    parser.add_argument("--batch_size", type=int, default=8, help="Images in a batch, where a row does not say fewer.")
    parser.add_argument("--weights", type=str, default="random", help="The network: random is the full-size VGG16.")
    parser.add_argument("--peers", type=bool, default=True, help="Whether the peers run; the bare network always does.")
    parser.add_argument("--json", type=str, help="File for all numbers; what it holds of other rows is kept.")
    options = parser.parse_args(args)
    names = {"all": list(ROWS), "none": []}.get(options.rows, options.rows.split(","))
    file = Path(options.json) if options.json else None
    run_benchmark(names, options.weights, options.batch_size, options.rounds, options.peers, file)


if __name__ == "__main__":
    run_main(main)
