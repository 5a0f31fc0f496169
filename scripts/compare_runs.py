"""Compares runs of the same images: two networks, two methods, before and after a change; with the first RUN named.

Prints for each score, and for accuracy, both means and the paired difference with its 95 % interval; and which images
changed most. With --out OUT it leaves a summary, figures, a TensorBoard run and a page there.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from lightning_modules.running import run_comparison, run_main


def main(args: list[str] | None = None) -> int:
    return run_comparison(description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
