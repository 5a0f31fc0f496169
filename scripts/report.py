"""Makes a page to hand on of each RUN, from what lies in it: index.html. Nothing is computed, and no image is read.

A RUN may have been moved or copied since, also from another machine.
"""

from __future__ import annotations

import _while_importing  # noqa: F401  first

from lightning_modules.running import run_main, run_report


def main(args: list[str] | None = None) -> int:
    return run_report(description=__doc__, args=args)


if __name__ == "__main__":
    run_main(main)
